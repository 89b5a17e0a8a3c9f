"""What a model takes in memory: weights, KV cache, one prefill step. Arithmetic on its sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from clara_mlx.errors import ClaraError

#: Bits of a cached key or value: 16 as it is, the others with mlx_lm.server's ``--kv-bits``.
KV_BITS = (16, 8, 4)
#: mlx-lm's default for ``--kv-group-size``.
KV_GROUP = 64
#: Tokens that mlx-lm's KV caches grow by (`KVCache.step`).
CACHE_STEP = 256

# Head sizes that MLX's fused attention on Metal has kernels for, which never make the scores.
_FUSED_HEAD_DIMS = (64, 80, 128)
# A layer's temporaries are freed when its GPU work is done; by then the next one's are made.
_LAYERS_IN_FLIGHT = 2


@dataclass(frozen=True)
class LayerCache:
    """How the cache of one layer grows, as mlx-lm's cache classes do it.

    ``window`` is the size of a `RotatingKVCache`; ``fixed_bytes`` those of a state that does not
    grow (state-space layers). Elements are ``itemsize`` bytes unless quantised.
    """

    heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    itemsize: int = 0
    window: int | None = None
    fixed_bytes: int = 0

    def nbytes(self, tokens: int, bits: int, step: int) -> int:
        """Bytes for one sequence of ``tokens`` that was prefilled ``step`` tokens at a time."""
        if self.fixed_bytes:
            return self.fixed_bytes
        if self.window is not None:  # a prefill step is appended before what fell out is cut
            length = min(tokens, self.window - 1 + step)
        else:
            length = ceil(tokens / CACHE_STEP) * CACHE_STEP
        return (
            self.heads * length * (self._row(self.key_dim, bits) + self._row(self.value_dim, bits))
        )

    def _row(self, dim: int, bits: int) -> int:
        """A cached vector as it is, or packed, with a scale and a bias for each group."""
        if bits == 16:
            return dim * self.itemsize
        return dim * bits // 8 + 2 * dim // KV_GROUP * self.itemsize


@dataclass(frozen=True)
class Footprint:
    """Sizes of one model, from its shapes.

    Attributes:
        parameters: weights as the architecture counts them, not as they are packed.
        weight_bytes: of all arrays that are loaded, scales and biases of quantised ones included.
        bits: per weight, as asked for; 16 for none. ``group_size`` weights share scale and bias.
        caches: one per layer.
        heads: query heads of a layer.
        layer_width: inputs and outputs per token of all matrices of the widest layer, an expert's
            as often as experts are chosen.
        longest_context: what the config claims, None if it says nothing.
        itemsize: bytes of an activation.
    """

    parameters: int
    weight_bytes: int
    bits: int
    group_size: int
    caches: tuple[LayerCache, ...]
    heads: int
    layer_width: int
    vocabulary: int
    longest_context: int | None
    itemsize: int

    @property
    def bits_per_weight(self) -> float:
        """With scales, biases and everything that is not quantised."""
        return self.weight_bytes * 8 / self.parameters

    def kv_bytes(self, tokens: int, kv_bits: int = 16, step: int = 2048) -> int:
        """KV cache of one sequence of ``tokens``, as mlx-lm allocates it.

        Raises:
            ClaraError: mlx-lm can't quantise the cache of this model.
        """
        if kv_bits != 16 and (problem := self.unquantisable_cache):
            raise ClaraError(f"{problem}: use 16 bits for the KV cache")
        kinds = Counter(self.caches)  # most layers are alike
        return sum(n * cache.nbytes(tokens, kv_bits, step) for cache, n in kinds.items())

    @property
    def unquantisable_cache(self) -> str | None:
        """Why mlx-lm can't quantise this model's KV cache, or None."""
        if any(cache.window is not None for cache in self.caches):
            return "mlx-lm can't quantise the sliding-window cache of this model"
        if any(dim % KV_GROUP for c in self.caches for dim in (c.key_dim, c.value_dim)):
            return f"mlx-lm can't quantise a cache whose head size is no multiple of {KV_GROUP}"
        return None

    def step_bytes(self, tokens: int, context: int, kv_bits: int = 16) -> int:
        """Temporaries of a pass over ``tokens`` with ``context`` behind it: an upper estimate.

        Inputs and outputs of every matrix of two layers at once. Where mlx's fused attention does
        not apply (quantised caches: mlx-lm's `quantized_scaled_dot_product_attention`; head sizes
        without a kernel) also two copies of the scores, tokens x context per query head, and
        their mask. mlx-lm never makes the logits of a prompt: only its last token's are asked for.
        """
        size = _LAYERS_IN_FLIGHT * self.layer_width * tokens * self.itemsize
        fused = kv_bits == 16 and all(
            cache.key_dim == cache.value_dim and cache.key_dim in _FUSED_HEAD_DIMS
            for cache in self.caches
            if cache.heads
        )
        if not fused:
            size += tokens * context * (2 * self.heads * self.itemsize + 1)
        return size

    def logit_bytes(self, sequences: int) -> int:
        """Logits, log-probabilities and their sorted copy of one token of each sequence."""
        return 3 * sequences * self.vocabulary * self.itemsize


@dataclass(frozen=True)
class ClaraFootprint:
    """CLaRa in memory: its base, all adapters, and the exact rows of the added tokens."""

    base: Footprint
    adapter_bytes: int
    row_bytes: int

    @property
    def weight_bytes(self) -> int:
        """What `clara_mlx.load` keeps on a GPU, once every adapter has been used."""
        return self.base.weight_bytes + self.adapter_bytes + self.row_bytes
