"""Cuts a long text into pieces to search in, so that no search keeps other threads waiting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

#: Characters of a piece without its context. A regular expression holds the interpreter until it
#: has matched or come to the end, which takes some milliseconds for as many.
PIECE_CHARACTERS = 1 << 17


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
    for start in range(0, len(text), PIECE_CHARACTERS):
        before = max(0, start - context)
        end = min(start + PIECE_CHARACTERS, len(text))
        with_context = "\n" + text[before : end + context]
        yield Piece(with_context, before - 1, start - before + 1, end - before + 1)


def find_all(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Every match, searched piece by piece; pieces begin where lines end, if there are lines.

    A match may go on beyond its piece, but must not depend on how much follows it.
    """
    found: list[re.Match[str]] = []
    start = 0
    while start < len(text):
        stop = start + PIECE_CHARACTERS
        if stop < len(text) and (line_end := text.rfind("\n", start + 1, stop)) > 0:
            stop = line_end
        number = len(found)
        found += pattern.finditer(text, start, stop)
        start = stop
        if len(found) > number and found[-1].end() == stop < len(text):
            last = found.pop()
            if (whole := pattern.match(text, last.start())) is not None:
                found.append(whole)
                start = max(stop, whole.end())
    return found
