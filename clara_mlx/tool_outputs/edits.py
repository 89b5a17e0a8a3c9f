"""A text with parts of it removed or replaced, and where each of its characters came from."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
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

    def __init__(self, text: str, edits: Iterable[Edit]) -> None:
        """Make the edits, which are in the order of the text and don't overlap."""
        given = list(edits)
        starts, ends, instead = zip(*given, strict=True) if given else ((), (), ())
        lengths = bytes(map(len, instead))
        self._starts, self._ends, self._lengths = array("q", starts), array("q", ends), lengths
        # How much shorter the text has become after each edit.
        shorter = accumulate(map(sub, map(sub, ends, starts), lengths))
        #: Where, in the new text, what follows each edit begins.
        self._at = array("q", map(sub, ends, shorter))
        kept = map(text.__getitem__, map(slice, (0, *ends), (*starts, len(text))))
        if any(lengths):
            self.text = "".join(chain.from_iterable(zip(kept, (*instead, ""), strict=True)))
        else:
            self.text = "".join(kept)

    def before(self, start: int, end: int) -> tuple[int, int]:
        """The characters of the text before the edits from which those of a span were made."""
        first = self._start_of(start)
        return (first, self._end_of(end - 1)) if end > start else (first, first)

    def after(self, position: int) -> int:
        """The number of characters that were made of those before a position of the old text."""
        edit = bisect_left(self._starts, position) - 1
        if edit < 0:
            return position
        return self._at[edit] + max(0, position - self._ends[edit])

    def _start_of(self, index: int) -> int:
        """Where the character at ``index`` was made from."""
        edit = bisect_right(self._at, index) - 1
        # An edit's own character stands just before what follows the edit.
        following = edit + 1
        if (
            following < len(self._at)
            and self._at[following] == index + 1
            and self._lengths[following]
        ):
            return self._starts[following]
        return index if edit < 0 else self._ends[edit] + index - self._at[edit]

    def _end_of(self, index: int) -> int:
        """One past the last character that the one at ``index`` was made from."""
        following = bisect_right(self._at, index)
        if (
            following < len(self._at)
            and self._at[following] == index + 1
            and self._lengths[following]
        ):
            return self._ends[following]
        return self._start_of(index) + 1
