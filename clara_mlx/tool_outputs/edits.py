"""A text with parts of it removed or replaced, and where each of its characters came from."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from operator import sub

Edit = tuple[int, int, str]
"""First character, one past the last, and what stands there instead: nothing, or one character."""


class Edited:
    """A text after its edits, with a map in both directions.

    The map has an entry for each edit, not for each character.

    Attributes:
        text: The text that the edits leave.
    """

    __slots__ = ("_at", "_ends", "_lengths", "_starts", "text")

    def __init__(self, text: str, edits: Sequence[Edit]) -> None:
        """Make the edits, which are in the order of the text and don't overlap."""
        starts, ends, instead = zip(*edits, strict=True) if edits else ((), (), ())
        lengths = bytes(map(len, instead))
        self._starts, self._ends, self._lengths = array("q", starts), array("q", ends), lengths
        # How much shorter the text has become after each edit.
        shorter = accumulate(map(sub, map(sub, ends, starts), lengths))
        #: Where, in the new text, what follows each edit begins.
        self._at = array("q", map(sub, ends, shorter))
        kept: Iterable[str] = map(text.__getitem__, map(slice, (0, *ends), (*starts, len(text))))
        if any(lengths):
            kept = chain.from_iterable(zip(kept, (*instead, ""), strict=True))
        self.text = "".join(kept)

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
