"""The lines of a tool's output, as the rules read them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

# Characters of a line that rules read; this bounds the time that a hostile line can take.
LINE_CHARACTERS = 2_000

# Lines that rules read of the same lines over and over. They state one thing again and again; real
# outputs have far fewer, and a hundred thousand would keep a request waiting.
_REPEATED_LINES = 1_000

# The most lines that such a repetition consists of.
_LONGEST_PERIOD = 4

# Characters that are split into lines at once, so that other threads get to run.
_SPLIT_CHARACTERS = 1 << 17


class Line(NamedTuple):
    """One line of the text, without its end, and where it starts."""

    start: int
    text: str


Matched = tuple[Line, re.Match[str]]
"""A line, and what a pattern matched in it."""


class Lines:
    """The lines of a text.

    A text can have as many lines as characters, and most of them state nothing. Rules look at the
    bare texts first; a `Line` is made for one that they read.

    Attributes:
        texts: The lines without their ends; what one has beyond `LINE_CHARACTERS` is left out.
    """

    def __init__(self, texts: list[str], starts: list[int]) -> None:
        self.texts = texts
        self._starts = starts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: int) -> Line:
        return Line(self._starts[number], self.texts[number])

    def __iter__(self) -> Iterator[Line]:
        return map(Line, self._starts, self.texts)

    def text_after(self, number: int) -> str:
        """The text of the line that follows line ``number``; empty if there is none."""
        return self.texts[number + 1] if number + 1 < len(self.texts) else ""

    def below(self, number: int) -> Lines:
        """The lines that follow line ``number``."""
        return Lines(self.texts[number + 1 :], self._starts[number + 1 :])

    def matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[int, Line]]:
        """The lines, with their numbers, that a pattern matches, but for empty ones."""
        for number, text in enumerate(self.texts):
            if text and pattern.match(text):
                yield number, Line(self._starts[number], text)


def split_lines(text: str) -> Lines:
    """The lines of ``text`` that rules read.

    What a line has beyond `LINE_CHARACTERS` is left out, and so is what follows on
    `_REPEATED_LINES` lines that repeat themselves, as long as they go on.
    """
    texts: list[str] = []
    starts: list[int] = []
    above: deque[str] = deque(maxlen=_LONGEST_PERIOD)  # the newest first
    period = 0
    repeated = 0
    for start, piece in _pieces(text):
        for line in piece.split("\n"):
            read = line[:LINE_CHARACTERS].removesuffix("\r") if line else line
            if repeated and read == above[period]:
                repeated += 1
            elif read in above:
                period = above.index(read)
                repeated = 1
            else:
                repeated = 0
            above.appendleft(read)
            if repeated < _REPEATED_LINES:
                texts.append(read)
                starts.append(start)
            start += len(line) + 1
    return Lines(texts, starts)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """The text in pieces that begin and end where lines do, and where each begins."""
    start = 0
    while start <= len(text):
        end = text.rfind("\n", start, start + _SPLIT_CHARACTERS)
        if end < 0:  # the last line, or a very long one
            end = text.find("\n", start + _SPLIT_CHARACTERS)
        if end < 0:
            end = len(text)
        yield start, text[start:end]
        start = end + 1
