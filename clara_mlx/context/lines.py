"""The lines of a text, and where they stand in the original that it is a view of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clara_mlx.tool_outputs.undress import Undressed, undress

# Characters. A longer line is looked at in parts.
_LONG = 3_000

# Characters of such a part.
_PART = 1_000


@dataclass(frozen=True)
class Lines:
    """The lines of a text, without their ends; very long ones in parts.

    Attributes:
        texts: The lines.
        starts: The index in the text of each line's first character.
    """

    texts: Sequence[str]
    starts: NDArray[np.intp]


def split_into_lines(text: str) -> Lines:
    """Every line of a text; very long ones in parts."""
    texts = text.split("\n")
    lengths = np.fromiter(map(len, texts), np.intp, len(texts))
    starts = np.cumsum(lengths + 1) - lengths - 1
    if lengths.max() <= _LONG:
        return Lines(texts, starts)
    parts: list[str] = []
    places: list[int] = []
    for line, start in zip(texts, starts.tolist(), strict=True):
        for i in range(0, len(line), _PART) if len(line) > _LONG else (0,):
            parts.append(line[i : i + _PART] if len(line) > _LONG else line)
            places.append(start + i)
    return Lines(parts, np.array(places, np.intp))


class Numbering:
    """The numbers of an original's lines, found for one place after the other.

    Attributes:
        count: The number of lines.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._counted = 0  # where the line of this number begins
        self._number = 1
        self.count = text.count("\n") + 1

    def at(self, position: int) -> tuple[int, int]:
        """The number, from 1, of the line at a position, and the characters of it before that."""
        start = self._text.rfind("\n", 0, position) + 1
        if start < self._counted:
            self._counted, self._number = 0, 1
        self._number += self._text.count("\n", self._counted, start)
        self._counted = start
        return self._number, position - start


class Passage:
    """A part of an original, as a reader sees it, by the line.

    Attributes:
        lines: The lines that a reader sees.
    """

    def __init__(self, text: str, offset: int = 0) -> None:
        """Look at a text that begins at index ``offset`` of the original."""
        self._view: Undressed = undress(text)
        self._offset = offset
        self.lines = split_into_lines(self._view.text)

    def span(self, index: int) -> tuple[int, int]:
        """Where in the original a line, or a part of one, begins and ends."""
        start = int(self.lines.starts[index])
        first, last = start, start + len(self.lines.texts[index])
        if self._view.text is not self._view.original:
            first, last = self._view.original_span(first, last)
        return self._offset + first, self._offset + last

    def lines_in(self, start: int, end: int) -> range:
        """The indices of the lines that have a part of the original from ``start`` to ``end``."""
        indices = range(len(self.lines.texts))
        begin = bisect_right(indices, start, key=lambda index: self.span(index)[1])
        return range(begin, bisect_left(indices, end, begin, key=lambda index: self.span(index)[0]))

    def label(self, index: int, numbering: Numbering) -> str:
        """How a line is named to a reader: by its number in the original.

        One that begins inside a line of the original, such as one of a text inside JSON, is named
        by its first character, too.
        """
        start = self.span(index)[0]
        number, before = numbering.at(start)
        above = self.span(index - 1)[1] if index else self._offset - 1
        if before == 0 or above < start - before:
            return str(number)  # what is before it in its line is not seen
        return f"{number}, from character {before + 1}"


def passages_near(text: str, spans: Iterable[tuple[int, int]]) -> Iterator[Passage]:
    """The whole lines that have a part of some spans; of a very long line, the part in the span.

    Args:
        text: The original; what lies outside the spans costs next to nothing, however long it is.
        spans: First positions and those one past the last; they may overlap.
    """
    done = 0
    for first, last in sorted(spans):
        first, last = max(0, first, done), min(last, len(text))
        if first >= last:
            continue
        lowest = max(done, first - _LONG)
        before = text.rfind("\n", lowest, first)
        start = before + 1 if before >= 0 else lowest if lowest == done else first
        end = text.find("\n", last, last + _LONG)
        end = end if end >= 0 else min(last + _LONG, len(text))
        yield Passage(text[start:end], start)
        done = end + (text[end : end + 1] == "\n")
