"""Cutting a text into the chunks that a memory stores, with or without a model at hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clara_mlx.errors import Progress
from clara_mlx.model import chunking
from clara_mlx.store.newcomer import Span

if TYPE_CHECKING:
    from clara_mlx.model.clara import Clara

#: Length of a chunk that is cut without a tokenizer, in characters. The background compression
#: cuts such a text again, by tokens.
PROVISIONAL_CHARACTERS = 768

# Chunks between two calls of `progress`.
_PROGRESS_CHUNKS = 256


def cut(text: str, clara: Clara | None, progress: Progress | None = None) -> Iterator[Span]:
    """The spans of a text's chunks, in order; together they cover it exactly.

    Args:
        text: The text to cut.
        clara: The model whose tokenizer and chunk length count; without it, only characters do.
        progress: Called with the number of characters cut so far, and in all.
    """
    spans: Iterator[Span]
    if clara:
        chunks = chunking.split(text, clara.tokenizer, clara.config.doc_max_length)
        spans = ((chunk.start, chunk.end, chunk.tokens) for chunk in chunks)
    else:
        pieces = chunking.split_characters(text, PROVISIONAL_CHARACTERS)
        spans = ((start, end, None) for start, end in pieces)
    for number, span in enumerate(spans, 1):
        yield span
        if progress and number % _PROGRESS_CHUNKS == 0:
            progress(span[1], len(text))
