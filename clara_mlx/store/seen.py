"""What a reader sees of a chunk: the words of the index come from it, and so does the ranking."""

from __future__ import annotations

from dataclasses import dataclass

from clara_mlx.tool_outputs.undress import undress

# Longer texts are undressed a chunk at a time, with the lines that it begins and ends in.
_UNDRESSED_WHOLE = 1_000_000

# The most characters of such a line before and after the chunk.
_LINE_CHARACTERS = 4_096


def seen(text: str, start: int, end: int) -> str:
    """What a reader sees of a part of a text."""
    return _view_around(text, start, end)[0]


@dataclass(frozen=True)
class Place:
    """A line that a reader sees of a chunk, and where it comes from.

    Attributes:
        number: The number of the line of the original, from 1.
        text: The line as it is seen, without white space around it.
    """

    number: int
    text: str


def place(text: str, start: int, end: int, index: int) -> Place:
    """A line that a reader sees of a part of a text, given the line's index within that part."""
    piece, first, last = _view_around(text, start, end)
    lines = piece.split("\n")
    before = sum(len(line) + 1 for line in lines[:index])
    line = lines[index]
    view = undress(text[first:last] if (first, last) != (0, len(text)) else text)
    offset = len(view.seen(0, start - first)) + before + len(line) - len(line.lstrip())
    original, _ = view.original_span(offset, offset + 1)
    return Place(text.count("\n", 0, first + original) + 1, line.strip())


def _view_around(text: str, start: int, end: int) -> tuple[str, int, int]:
    """What is seen of a part of a text, and the span of the stretch that was looked at for it."""
    if len(text) <= _UNDRESSED_WHOLE:
        return undress(text).seen(start, end), 0, len(text)
    first = text.rfind("\n", max(0, start - _LINE_CHARACTERS), start) + 1 or start
    last = text.find("\n", end, end + _LINE_CHARACTERS) + 1 or end
    return undress(text[first:last]).seen(start - first, end - first), first, last
