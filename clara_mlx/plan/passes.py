"""What a pass of CLaRa has to compute and to read, counted from the config of its base.

Counted is what no program can leave out: the products of the encoder up to its memory tokens, or of
the decoder up to its next token, and each weight once. A machine's rates turn that into the
shortest time that it could take (`Work.limit_seconds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from clara_mlx.errors import ClaraError
from clara_mlx.model.lora import TARGETS

# Linears of a block that the last block runs at every position; the others only where it is read.
_KEYS_AND_VALUES = ("self_attn.k_proj", "self_attn.v_proj")

# Bytes of a group's scale and bias, each of 16 bits.
_GROUP_BYTES = 4


@dataclass(frozen=True)
class Work:
    """What a pass must do: operations (a multiplication and an addition are two) and bytes read."""

    operations: int
    nbytes: int

    def limit_seconds(self, flops: float, bandwidth: float) -> float:
        """The shortest time on a machine, given its operations and its bytes a second."""
        return max(self.operations / flops, self.nbytes / bandwidth)

    def bound(self, flops: float, bandwidth: float) -> Literal["arithmetic", "memory"]:
        """Which of the two takes longer there."""
        slower = self.operations / flops >= self.nbytes / bandwidth
        return "arithmetic" if slower else "memory"


@dataclass(frozen=True)
class BaseShape:
    """The sizes of a Llama-like base and of an adapter on it; made by `from_config`.

    Attributes:
        layers: Number of blocks.
        heads: Query heads of a block.
        head_dim: Length of a head's vectors.
        kv_heads: Heads of keys and values.
        linears: (outputs, inputs) of a block's seven linears, by name.
        block_bytes: Bytes of all blocks' linears as they are stored.
        head_shape: (outputs, inputs) of lm_head.
        head_bytes: Bytes of lm_head.
        rank: Rank of the adapters.
        itemsize: Bytes of an adapter's and of a cached value.
    """

    layers: int
    heads: int
    head_dim: int
    kv_heads: int
    linears: dict[str, tuple[int, int]]
    block_bytes: int
    head_shape: tuple[int, int]
    head_bytes: int
    rank: int
    itemsize: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, rank: int, itemsize: int = 2) -> BaseShape:
        """Read the sizes from a base's ``config.json``, quantised or not.

        Raises:
            ClaraError: A size is missing, so that this is not a Llama-like base.
        """
        try:
            hidden, mlp = int(config["hidden_size"]), int(config["intermediate_size"])
            heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
            kv_heads = int(config.get("num_key_value_heads") or heads)
            head_dim = int(config.get("head_dim") or hidden // heads)
            head_shape = (int(config["vocab_size"]), hidden)
        except (KeyError, TypeError, ValueError) as error:
            raise ClaraError(
                f"the base's config has no {error.args[0]!r} that can be counted: not Llama-like"
            ) from error
        wide, narrow = heads * head_dim, kv_heads * head_dim
        shapes = ((wide, hidden), (narrow, hidden), (narrow, hidden), (hidden, wide))
        linears = dict(
            zip(TARGETS, (*shapes, (mlp, hidden), (mlp, hidden), (hidden, mlp)), strict=True)
        )
        block_bytes = sum(
            _stored_bytes(shape, f"model.layers.{number}.{name}", config, itemsize)
            for number in range(layers)
            for name, shape in linears.items()
        )
        head_bytes = _stored_bytes(head_shape, "lm_head", config, itemsize)
        return cls(
            layers, heads, head_dim, kv_heads, linears, block_bytes, head_shape, head_bytes, rank,
            itemsize,
        )  # fmt: skip

    @property
    def adapter_bytes(self) -> int:
        """Bytes of one adapter."""
        widths = sum(outputs + inputs for outputs, inputs in self.linears.values())
        return self.layers * self.rank * widths * self.itemsize

    def block_operations(self, *, of: Sequence[str] = TARGETS) -> int:
        """Operations of a block's linears and their adapters for one position."""
        return sum(
            2 * outputs * inputs + 2 * self.rank * (outputs + inputs)
            for outputs, inputs in (self.linears[name] for name in of)
        )

    def encode(self, lengths: Sequence[int], memory_tokens: int) -> Work:
        """The encoder pass over inputs of these lengths, each with its memory tokens last.

        The last block computes keys and values everywhere, and all else at the memory tokens only;
        lm_head is not run. The weights are read once for all inputs.
        """
        positions, read = sum(lengths), len(lengths) * memory_tokens
        others = [name for name in self.linears if name not in _KEYS_AND_VALUES]
        operations = (self.layers - 1) * positions * self.block_operations()
        operations += positions * self.block_operations(of=_KEYS_AND_VALUES)
        operations += read * self.block_operations(of=others)
        pairs = sum((self.layers - 1) * _pairs(length, length) for length in lengths)
        pairs += sum(_pairs(length, memory_tokens) for length in lengths)
        operations += pairs * self._operations_of_a_pair
        return Work(operations, self.block_bytes + self.adapter_bytes)

    def prefill(self, tokens: int) -> Work:
        """The decoder pass over a prompt, up to the first token of the answer."""
        encoded = self.encode([tokens], 1)
        outputs, inputs = self.head_shape
        return Work(encoded.operations + 2 * outputs * inputs, encoded.nbytes + self.head_bytes)

    def decode(self, context: int) -> Work:
        """The decoder pass over one token, with this many in the cache before it."""
        outputs, inputs = self.head_shape
        operations = self.layers * self.block_operations() + 2 * outputs * inputs
        operations += self.layers * (context + 1) * self._operations_of_a_pair
        cache = 2 * self.layers * self.kv_heads * self.head_dim * context * self.itemsize
        nbytes = self.block_bytes + self.adapter_bytes + self.head_bytes + cache
        return Work(operations, nbytes)

    @property
    def _operations_of_a_pair(self) -> int:
        """Of a position that attends to one: the product of query and key, and the value's."""
        return 4 * self.heads * self.head_dim


def _pairs(length: int, queries: int) -> int:
    """Pairs of a position and one that it attends to, for the last ``queries`` of a text."""
    first = length - queries
    return length * (length + 1) // 2 - first * (first + 1) // 2


def _stored_bytes(
    shape: tuple[int, int], path: str, config: Mapping[str, Any], itemsize: int
) -> int:
    """Bytes of a matrix as mlx stores it: packed with a scale and a bias a group, or plain."""
    outputs, inputs = shape
    scheme = config.get("quantization") or {}
    own = scheme.get(path, scheme) if isinstance(scheme, Mapping) else {}
    if not own:
        return outputs * inputs * itemsize
    affine = own.get("mode", scheme.get("mode", "affine")) == "affine"
    groups = ceil(inputs / own["group_size"])
    return outputs * (inputs * own["bits"] // 8 + groups * (_GROUP_BYTES if affine else 1))
