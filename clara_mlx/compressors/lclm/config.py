"""LclmConfig: what an LCLM checkpoint says about itself, as numbers and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from clara_mlx.errors import CheckpointError

#: Tokens of the longest chunk that a memory makes of a text. It is what the published agent cuts
#: documents into, and what CLaRa's chunks hold, so that both are compared over equal pieces.
CHUNK_TOKENS = 256

# Far above any published value; it keeps a hostile config from costing memory.
_MOST = 1 << 20

#: The three tokens that the decoder has beside its base's, in the order of their ids.
MEMORY_TOKENS = ("<|memory_start|>", "<|memory_end|>", "<|memory|>")


@dataclass(frozen=True)
class LclmConfig:
    """The fields of an LCLM checkpoint that shape inference; ids are the decoder's."""

    ratio: int  # tokens that become one latent: 4, 8 or 16
    encoder_window: int  # tokens that the encoder reads at a time, a multiple of the ratio
    encoder_hidden: int  # width of the encoder, and so of a pooled state
    hidden_size: int  # width of the decoder, and so of a latent
    window: int  # positions of the decoder
    memory_start_id: int
    memory_end_id: int
    memory_id: int  # in the places that latents take
    turn_start_id: int  # <|im_start|>
    turn_end_id: int  # <|im_end|>, which ends an answer
    rows: int  # of the decoder's table of embeddings

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int:  # bool is an int to Python, but not to a config
                raise CheckpointError(f"config: {field.name} must be a number, got {value!r:.40}")
            lowest = 0 if field.name.endswith("_id") else 1
            if not lowest <= value <= _MOST:
                raise CheckpointError(f"config: {field.name} can't be {value}")
            if field.name.endswith("_id") and value >= self.rows:
                raise CheckpointError(
                    f"config: {field.name} is {value}, but the decoder knows {self.rows} ids"
                )
        if self.encoder_window % self.ratio:
            raise CheckpointError(
                f"config: the encoder's window of {self.encoder_window} tokens is not a multiple "
                f"of the ratio {self.ratio}"
            )

    @property
    def chunk_tokens(self) -> int:
        """Tokens of the longest chunk that a memory makes of a text."""
        return min(CHUNK_TOKENS, self.encoder_window)

    def latents(self, tokens: int) -> int:
        """Number of latents that a text of so many tokens becomes; 1 for an empty one."""
        return max(1, -(-tokens // self.ratio))

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for ``clara.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: str) -> LclmConfig:
        """Read the fields from a mapping, which may have others too.

        Raises:
            CheckpointError: A field is missing or out of place; ``where`` names the file.
        """
        missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in raw]
        if missing:
            raise CheckpointError(f"{where}: not an LCLM config: it has no {', '.join(missing)}")
        try:
            return cls(**{field.name: raw[field.name] for field in fields(cls)})
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from error
