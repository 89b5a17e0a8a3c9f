"""The memory a model takes for weights, KV cache and one pass, computed from its sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import ceil

from clara_mlx.errors import ClaraError

#: Bits of a cached key or value; 16 means not quantised, the others are mlx_lm.server's
#: ``--kv-bits``.
KV_BITS = (16, 8, 4)
#: Elements of a key or value that share a scale and a bias: mlx-lm's ``--kv-group-size`` default.
KV_GROUP = 64
#: Tokens that mlx-lm's KV caches grow by (`KVCache.step`).
CACHE_STEP = 256

# Head sizes for which MLX has fused attention kernels on Metal, which never store the scores.
_FUSED_HEAD_DIMS = (64, 80, 128)
# Layers with temporaries at a time: one's are freed when its GPU work is done, but by then the
# next one's exist.
_LAYERS_IN_FLIGHT = 2


@dataclass(frozen=True)
class LayerCache:
    """The cache of one layer, which grows as mlx-lm's cache classes do."""

    heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    itemsize: int = 0  # bytes of an element that is not quantised
    window: int | None = None  # tokens that a RotatingKVCache keeps
    fixed_bytes: int = 0  # size of a state that does not grow (state-space layers)

    def nbytes(self, tokens: int, bits: int, step: int) -> int:
        """Bytes for one sequence of ``tokens`` that was prefilled ``step`` tokens at a time."""
        if self.fixed_bytes:
            return self.fixed_bytes
        if self.window is not None:  # a prefill step is appended before old tokens are cut off
            length = min(tokens, self.window - 1 + step)
        else:
            length = ceil(tokens / CACHE_STEP) * CACHE_STEP
        vectors = self._vector_bytes(self.key_dim, bits) + self._vector_bytes(self.value_dim, bits)
        return self.heads * length * vectors

    def _vector_bytes(self, dim: int, bits: int) -> int:
        """Bytes of a cached vector: as it is, or packed with a scale and a bias for each group."""
        if bits == 16:
            return dim * self.itemsize
        return dim * bits // 8 + 2 * dim // KV_GROUP * self.itemsize


@dataclass(frozen=True)
class Footprint:
    """Sizes of one model, computed from its shapes."""

    parameters: int  # weights as the architecture counts them, not as they are packed
    weight_bytes: int  # all arrays that are loaded, with scales and biases
    bits: int  # per quantised weight; 16 means not quantised
    group_size: int  # weights that share a scale and a bias
    caches: tuple[LayerCache, ...]  # one per layer
    heads: int  # query heads of a layer
    layer_width: int  # inputs and outputs of all matrices that a token passes in the widest layer
    vocabulary: int  # token ids
    longest_context: int | None  # tokens, as the config claims, if it does
    itemsize: int  # bytes of an activation

    @property
    def bits_per_weight(self) -> float:
        """The average, with scales, biases and everything that is not quantised."""
        return self.weight_bytes * 8 / self.parameters

    def kv_bytes(self, tokens: int, kv_bits: int = 16, step: int = 2048) -> int:
        """Bytes of one sequence's KV cache, as mlx-lm allocates it.

        Args:
            tokens: Length of the sequence.
            kv_bits: Bits of a cached key or value.
            step: Prompt tokens per pass.

        Raises:
            ClaraError: mlx-lm can't quantise the cache of this model.
        """
        if kv_bits != 16 and (problem := self.cache_problem):
            raise ClaraError(f"{problem}; use 16 bits for the KV cache")
        kinds = Counter(self.caches)  # most layers are alike
        return sum(n * cache.nbytes(tokens, kv_bits, step) for cache, n in kinds.items())

    @property
    def is_trimmable(self) -> bool:
        """Whether mlx-lm can go on after the part of a prompt that precedes a change.

        A recurrent state can't be rewound, nor can a window that has slid. Then mlx_lm.server
        reads a changed prompt anew, all of it.
        """
        return all(cache.window is None and not cache.fixed_bytes for cache in self.caches)

    @property
    def cache_problem(self) -> str | None:
        """Why mlx-lm can't quantise this model's KV cache, or None."""
        if any(cache.window is not None for cache in self.caches):
            return "mlx-lm can't quantise the sliding-window cache of this model"
        if any(dim % KV_GROUP for c in self.caches for dim in (c.key_dim, c.value_dim)):
            return f"mlx-lm can't quantise a cache whose head size is not a multiple of {KV_GROUP}"
        return None

    def step_bytes(self, tokens: int, context: int, kv_bits: int = 16) -> int:
        """An upper estimate of a pass's temporaries, in bytes.

        Counted are the inputs and outputs of every matrix of two layers. Where mlx's fused
        attention does not apply (quantised caches use mlx-lm's
        `quantized_scaled_dot_product_attention`; some head sizes have no kernel), two copies of
        the scores (query heads, tokens, context) and their mask come on top. Logits are not
        counted, as mlx-lm computes those of a prompt's last token only.

        Args:
            tokens: Tokens that the pass reads.
            context: Tokens that they attend to.
            kv_bits: Bits of a cached key or value.
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
        """Bytes of logits, log-probabilities and a sorted copy, for one token per sequence."""
        return 3 * sequences * self.vocabulary * self.itemsize


@dataclass(frozen=True)
class ClaraFootprint:
    """Sizes of CLaRa: its base, all adapters, and the exact rows of the added tokens."""

    base: Footprint
    adapter_bytes: int
    row_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Bytes that a loaded CLaRa keeps on a GPU once every adapter has been used."""
        return self.base.weight_bytes + self.adapter_bytes + self.row_bytes
