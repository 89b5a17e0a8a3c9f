"""Removes or replaces parts of a text, and tells where each of its characters came from."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from operator import sub

Edit = tuple[int, int, str]
"""First character, one past the last, and what stands there instead: nothing, or one character."""

# Edits that are made at once, so that other threads get to run.
_AT_ONCE = 1 << 14


class Origins:
    """Where the characters of an edited text came from.

    There is an entry for each edit, not for each character.
    """

    __slots__ = ("_at", "_ends", "_lengths", "_starts")

    def __init__(self) -> None:
        self._starts = array("q")
        self._ends = array("q")
        self._lengths = bytearray()  # of what stands there instead
        self._at = array("q")  # where, in the edited text, what follows each edit begins

    def append(self, starts: Sequence[int], ends: Sequence[int], instead: Sequence[str]) -> None:
        """Add the edits that follow: their first characters, their ends, and what replaces them."""
        shorter = self._ends[-1] - self._at[-1] if self._at else 0
        lengths = bytes(map(len, instead))
        removed = accumulate(map(sub, map(sub, ends, starts), lengths), initial=shorter)
        next(removed)
        self._starts.extend(starts)
        self._ends.extend(ends)
        self._lengths += lengths
        self._at.extend(map(sub, ends, removed))

    def before(self, start: int, end: int) -> tuple[int, int]:
        """The characters of the text before the edits from which those of a span were made."""
        first = self._origin(start)[0]
        return (first, self._origin(end - 1)[1]) if end > start else (first, first)

    def after(self, position: int) -> int:
        """The number of characters that were made of those before a position of the old text."""
        edit = bisect_left(self._starts, position) - 1
        if edit < 0:
            return position
        return self._at[edit] + max(0, position - self._ends[edit])

    def _origin(self, index: int) -> tuple[int, int]:
        """The characters that the one at ``index`` was made from."""
        # An edit's own character stands just before what follows the edit.
        edit = bisect_right(self._at, index)
        if edit < len(self._at) and self._at[edit] == index + 1 and self._lengths[edit]:
            return self._starts[edit], self._ends[edit]
        start = index + self._ends[edit - 1] - self._at[edit - 1] if edit else index
        return start, start + 1


def edit(text: str, edits: Sequence[Edit]) -> tuple[str, Origins]:
    """A text after edits, which are in its order and don't overlap, with the way back."""
    origins = Origins()
    parts: list[str] = []
    last = 0
    for first in range(0, len(edits), _AT_ONCE):
        starts, ends, instead = zip(*edits[first : first + _AT_ONCE], strict=True)
        origins.append(starts, ends, instead)
        kept: Iterable[str] = map(text.__getitem__, map(slice, (last, *ends[:-1]), starts))
        if any(instead):
            kept = chain.from_iterable(zip(kept, instead, strict=True))
        parts.append("".join(kept))
        last = ends[-1]
    return "".join((*parts, text[last:])), origins
