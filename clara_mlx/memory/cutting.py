"""Cutting a text into the chunks that a memory stores, with or without a model at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clara_mlx.errors import Progress
from clara_mlx.model import chunking
from clara_mlx.store.newcomer import Span

if TYPE_CHECKING:
    from clara_mlx.model.tokenizer import TextTokenizer

#: Length of a chunk that is cut without a tokenizer, in characters. The background compression
#: cuts such a text again, by tokens.
PROVISIONAL_CHARACTERS = 768

# Chunks between two calls of `progress`.
_PROGRESS_CHUNKS = 256


@dataclass(frozen=True)
class Measure:
    """What a model's chunks are measured by."""

    tokenizer: TextTokenizer
    limit: int  # tokens of the longest chunk

    def to_json(self) -> list[Any]:
        """The measure as a value for JSON, to be read in another process."""
        return [self.tokenizer.full.to_str(), self.limit]

    @classmethod
    def from_json(cls, value: list[Any]) -> Measure:
        """The opposite of `to_json`."""
        from clara_mlx.model.tokenizer import TextTokenizer

        tokenizer, limit = value
        return cls(TextTokenizer(tokenizer), limit)


def cut(text: str, measure: Measure | None, progress: Progress | None = None) -> Iterator[Span]:
    """The spans of a text's chunks, in order; together they cover it exactly.

    Args:
        text: The text to cut.
        measure: The model's; without it, only characters count.
        progress: Called with the number of characters cut so far, and in all.
    """
    spans: Iterator[Span]
    if measure:
        chunks = chunking.split(text, measure.tokenizer, measure.limit)
        spans = ((chunk.start, chunk.end, chunk.tokens) for chunk in chunks)
    else:
        pieces = chunking.split_characters(text, PROVISIONAL_CHARACTERS)
        spans = ((start, end, None) for start, end in pieces)
    for number, span in enumerate(spans, 1):
        yield span
        if progress and number % _PROGRESS_CHUNKS == 0:
            progress(span[1], len(text))
