"""Cuts a long text into pieces to search in, so that no search keeps other threads waiting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

# Characters of a piece without its context. A regular expression holds the interpreter until it
# has matched or come to the end, which takes some milliseconds for as many.
_PIECE_CHARACTERS = 1 << 17


class Piece(NamedTuple):
    """A piece of a text with what stands around it.

    Attributes:
        text: A line feed, so that the first line of a text begins like any other; then the piece
            with its context.
        offset: The index in the whole text of this text's first character.
        start: The index in this text of the piece's first character.
        end: One past its last character.
    """

    text: str
    offset: int
    start: int
    end: int


def cut_into_pieces(text: str, context: int) -> Iterator[Piece]:
    """The pieces of a text, in their order.

    Who searches in all of them, and takes what begins between `Piece.start` and `Piece.end`, finds
    what he would find in the whole text, if nothing depends on more than its context.

    Args:
        text: Any text.
        context: Characters before and after each piece.
    """
    for start in range(0, len(text), _PIECE_CHARACTERS):
        before = max(0, start - context)
        end = min(start + _PIECE_CHARACTERS, len(text))
        with_context = "\n" + text[before : end + context]
        yield Piece(with_context, before - 1, start - before + 1, end - before + 1)
