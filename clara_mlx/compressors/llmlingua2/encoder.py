"""The encoders of LLMLingua-2, BERT and XLM-RoBERTa, with a head that rates each token.

One network serves both: they differ in the first position's number, in their vocabularies and in
sizes. Post-norm transformer blocks, exact GELU, learnt positions, two classes a token; the second
class is "keep".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from clara_mlx.errors import CheckpointError

#: Kinds of encoder, by the ``model_type`` of their configs.
KINDS = ("bert", "xlm-roberta")

# The class of tokens that are kept.
_KEEP = 1

# No real encoder is larger; a hostile config must not cost memory.
_MOST_LAYERS = 256
_MOST_SIZE = 1 << 20  # of any one dimension

# What a config says of a network that would compute something else, and what it must say.
_ONLY = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an encoder; names are Hugging Face's."""

    model_type: str  # one of KINDS
    vocab_size: int  # rows of the embedding table
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int  # rows of the table of positions
    type_vocab_size: int
    layer_norm_eps: float
    pad_token_id: int

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], *, where: str) -> EncoderConfig:
        """The sizes that a ``config.json`` states.

        Raises:
            CheckpointError: A field is missing or out of all proportion, or the network is one
                that is not computed here; the message names the file ``where``.
        """
        kind = fields.get("model_type")
        if kind not in KINDS:
            raise CheckpointError(
                f"{where}: model_type {kind!r:.40} is not an encoder of LLMLingua-2; these are "
                f"{' and '.join(KINDS)}"
            )
        for name, value in _ONLY.items():
            if fields.get(name, value) != value:
                raise CheckpointError(
                    f"{where}: {name} {fields[name]!r:.40} is not supported, only {value!r}"
                )

        def size(name: str, most: int = _MOST_SIZE, least: int = 1) -> int:
            value = fields.get(name)
            if type(value) is not int or not least <= value <= most:
                raise CheckpointError(f"{where}: {name} can't be {value!r:.40}")
            return value

        epsilon = fields.get("layer_norm_eps")
        if not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise CheckpointError(f"{where}: layer_norm_eps can't be {epsilon!r:.40}")
        config = cls(
            model_type=kind,
            vocab_size=size("vocab_size", 1 << 23),
            hidden_size=size("hidden_size"),
            num_hidden_layers=size("num_hidden_layers", _MOST_LAYERS),
            num_attention_heads=size("num_attention_heads"),
            intermediate_size=size("intermediate_size"),
            max_position_embeddings=size("max_position_embeddings"),
            type_vocab_size=size("type_vocab_size"),
            layer_norm_eps=epsilon,
            pad_token_id=size("pad_token_id", least=0),
        )
        if config.hidden_size % config.num_attention_heads:
            raise CheckpointError(
                f"{where}: hidden_size {config.hidden_size} can't be divided among "
                f"{config.num_attention_heads} heads"
            )
        if config.longest_input < 3:
            raise CheckpointError(f"{where}: max_position_embeddings leaves no room for a text")
        return config

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @property
    def first_position(self) -> int:
        """The position of the first token: RoBERTa's family starts after that of padding."""
        return self.pad_token_id + 1 if self.model_type == "xlm-roberta" else 0

    @property
    def longest_input(self) -> int:
        """Tokens that the encoder reads at once, those around a text included."""
        return self.max_position_embeddings - self.first_position


class TokenClassifier(nn.Module):
    """An encoder with two logits for each token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.embeddings = _Embeddings(config)
        self.layers = [_Layer(config) for _ in range(config.num_hidden_layers)]
        self.classifier = nn.Linear(config.hidden_size, 2)

    def __call__(self, ids: mx.array, positions: mx.array, mask: mx.array | None) -> mx.array:
        """Logits (batch, length, 2).

        Args:
            ids: Token ids (batch, length).
            positions: Rows of the table of positions (batch, length).
            mask: Which tokens may be attended to (batch, 1, 1, length); None: all.
        """
        h = self.embeddings(ids, positions)  # (batch, length, hidden)
        for layer in self.layers:
            h = layer(h, mask)
        logits: mx.array = self.classifier(h)
        return logits


class _Embeddings(nn.Module):
    """Sum of a token's embedding, its position's and the first segment's, normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tokens: nn.Module = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.segments = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, ids: mx.array, positions: mx.array) -> mx.array:
        h = self.tokens(ids) + self.positions(positions) + self.segments.weight[0]
        normed: mx.array = self.norm(h)
        return normed


class _Layer(nn.Module):
    """A transformer block that normalises after each of its two sums."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        hidden = config.hidden_size
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.up = nn.Linear(hidden, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, hidden)
        self.mlp_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self._heads = config.num_attention_heads

    def __call__(self, h: mx.array, mask: mx.array | None) -> mx.array:
        batch, length, hidden = h.shape

        def split(states: mx.array) -> mx.array:  # (batch, heads, length, hidden / heads)
            return states.reshape(batch, length, self._heads, -1).swapaxes(1, 2)

        attended = mx.fast.scaled_dot_product_attention(
            split(self.query(h)),
            split(self.key(h)),
            split(self.value(h)),
            scale=(hidden // self._heads) ** -0.5,
            mask=mask,
        )
        attended = attended.swapaxes(1, 2).reshape(batch, length, hidden)
        h = self.attention_norm(h + self.output(attended))
        changed: mx.array = self.mlp_norm(h + self.down(nn.gelu(self.up(h))))
        return changed


def keep_probabilities(
    network: TokenClassifier, config: EncoderConfig, batch: Sequence[Sequence[int]]
) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """For each input, the probability of each of its tokens to be kept, (length,) float32.

    Args:
        network: The encoder.
        config: Its sizes.
        batch: Token ids of the inputs, with the tokens around a text; they are padded here.
    """
    longest = max(map(len, batch))
    is_ragged = min(map(len, batch)) != longest
    pad = config.pad_token_id
    ids = np.array([[*row, *[pad] * (longest - len(row))] for row in batch])
    positions = np.broadcast_to(config.first_position + np.arange(longest), ids.shape)
    mask = None
    if is_ragged:
        lengths = np.array([len(row) for row in batch])
        mask = mx.array((np.arange(longest) < lengths[:, None])[:, None, None, :])
    logits = network(mx.array(ids), mx.array(positions), mask).astype(mx.float32)
    kept = np.array(mx.softmax(logits, axis=-1)[..., _KEEP])
    return [row[: len(input)] for row, input in zip(kept, batch, strict=True)]
