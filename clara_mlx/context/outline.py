"""What stands where in a long text: a table of contents of what a page of it does not show.

It is made when a page is asked for, from the text alone, and is the same each time.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from clara_mlx.context.lines import Numbering
from clara_mlx.tool_outputs.code_names import definitions, names
from clara_mlx.tool_outputs.quoting import one_line
from clara_mlx.tool_outputs.signs import signs
from clara_mlx.tool_outputs.sources import is_listing
from clara_mlx.tool_outputs.undress import Undressed, undress

# Characters of an outline for each section that it tells of, about.
_SECTION = 300

# The fewest characters of the text that a section has.
_LEAST_SECTION = 800

# Characters of the text that are read, of all sections together.
_READ = 240_000

# Characters of a text that is undressed as a whole, so that lines inside JSON are lines.
_UNDRESSED = 1_000_000

# Characters of a line that heads what follows it.
_HEAD = 100

# The share of a section's room that the lines which head its parts may take; names have the rest.
_HEADS = 0.7

# ## Usage, === FAILURES ===, called bash m-1f2e3d4c5b6a: make test
_HEADING = re.compile(
    r"\n(?:#{1,6} \S|={3,80} ?\w|-{3,80} \w|(?:user|assistant|called [\w.:/@+-]{1,80})[ :])"
)

# What heads a part of a run's output.
_WEIGHTS = frozenset(("failed", "error", "verdict"))


def outline(text: str, start: int, characters: int) -> str:
    """What a page's heading says of what stands further on; empty if there is nothing to say.

    For each section of the rest: the range of its lines; the lines that head its parts, which are
    definitions, headings and what failed, with their numbers; and names that were not in the text
    before. Sections that are too long to be read whole are read where they begin, and it says so.

    Args:
        text: The text.
        start: The index of the first character that is told of.
        characters: Characters that this may have, about.
    """
    if characters < _SECTION:
        return ""
    view = undress(text) if len(text) <= _UNDRESSED else Undressed(text, text, ())
    begin = len(view.seen(0, start))
    left = len(view.text) - begin
    count = min(characters // _SECTION, left // _LEAST_SECTION)
    if count < 1:
        return ""
    contents = _Contents(view, view.text[:begin])
    borders = _borders(view.text, begin, count)
    told: list[str] = []
    room = characters
    for number, (first, last) in enumerate(pairwise(borders)):
        section = contents.describe(first, last, _READ // count, room // (count - number))
        told.append(section)
        room -= len(section)
    part = "" if left <= _READ else " (of each section, only its beginning is told)"
    return f"; further on{part}{''.join(told)}"


def _borders(text: str, start: int, count: int) -> list[int]:
    """Where ``count`` sections of about the same length begin, and the text's end."""
    borders = [start]
    for number in range(1, count):
        near = start + (len(text) - start) * number // count
        feed = text.find("\n", near, near + _LEAST_SECTION // 2)
        borders.append(feed + 1 if feed >= 0 else near)
    return [*borders, len(text)]


class _Place(NamedTuple):
    """A line of the original, and the character in it at which what is told of begins."""

    number: int
    character: int

    def __str__(self) -> str:
        inside = self.character > 1
        return f"{self.number}, character {self.character}" if inside else str(self.number)


class _Contents:
    """Tells what sections of a text have; what was said once is not said again."""

    def __init__(self, view: Undressed, known: str) -> None:
        self._view = view
        self._known = known
        self._numbering = Numbering(view.original)
        self._said: set[str] = set()

    def describe(self, first: int, last: int, most: int, room: int) -> str:
        """What stands in a part of the view's text, of which ``most`` characters are read."""
        part = undress(self._view.text[first : min(last, first + most)])
        begin = self._place(first)
        heads = [
            f"{self._place(first + place)} {one_line(line, _HEAD)}"
            for place, line in _heads(part)
            if self._is_new(line)
        ]
        begins_and_ends = f"; {_range(begin, self._place(last - 1))}: "
        room -= len(begins_and_ends)
        told = _spread(heads, int(room * _HEADS))
        room -= sum(len(head) + 2 for head in told)
        said = " ".join(told)
        found: list[str] = []
        for name in names(part.bare.text):
            if name in self._known or name in said or not self._is_new(name):
                continue
            room -= len(name) + 2
            if room < 0:
                break
            found.append(name)
        if found:
            told.append(", ".join(found))
        if not told:
            told.append(one_line(part.text.lstrip().partition("\n")[0], _HEAD))
        return begins_and_ends + "; ".join(told)

    def _is_new(self, text: str) -> bool:
        """Whether this was not said yet; from now on, it was."""
        is_new = text not in self._said
        self._said.add(text)
        return is_new

    def _place(self, position: int) -> _Place:
        """Where a reader finds a position of the view's text in the original."""
        start = self._view.original_span(position, position)[0]
        number, before = self._numbering.at(start)
        above = self._view.original_span(position - 1, position)[0] if position else -1
        begins_line = before == 0 or above < start - before  # nothing is seen before it
        return _Place(number, 1 if begins_line else before + 1)


def _range(begin: _Place, last: _Place) -> str:
    """How a section is named: by its lines, or, inside one line, by its characters."""
    if begin.number == last.number:
        return f"line {begin.number}, characters {begin.character}-{last.character}"
    return f"lines {begin}-{last.number}"


def _spread(heads: list[str], room: int) -> list[str]:
    """As many heads as there is room for, from all of a section; the others are counted."""
    size = sum(len(head) + 2 for head in heads)
    if size <= room:
        return heads
    step = -(-size // max(1, room))
    left = len(heads) - len(heads[::step])
    return [*heads[::step], f"(+{left})"]


def _heads(part: Undressed) -> list[tuple[int, str]]:
    """The lines that head the parts of a text, each with the place where it begins, in order."""
    code, bare = part.code, part.bare
    defined = [one.start for one in definitions(code.text)]
    headed = [match.start() for match in _HEADING.finditer("\n" + bare.text)]
    if not is_listing(bare.text):
        headed += [one.line for one in signs(bare.text) if one.weight in _WEIGHTS]
    found: dict[int, str] = {}
    for view, places in ((code, defined), (bare, headed)):
        for place in places:
            start = view.text.rfind("\n", 0, place) + 1
            end = view.text.find("\n", place)
            line = view.text[start : end if end >= 0 else len(view.text)].strip()
            before = view.original_span(start, start)[0]  # what a line wears belongs to it
            found.setdefault(part.original.rfind("\n", 0, before) + 1, line)
    return sorted(found.items())
