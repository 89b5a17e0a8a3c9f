"""One memory: its original a page at a time, beside what was sent in its place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clara_mlx.errors import NotFound
from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.fates import Fate, Followed, first_page_end, follow, tally
from clara_mlx.store.browsing import Listed, Standing
from clara_mlx.store.sums import Use

#: Characters of one page of an original.
PAGE_CHARACTERS = 16_000

# Characters before the end of a page in which a line's end is looked for.
_SLACK = 2_000

# Characters that are shown of a text that stands for the memory or tells of it.
_STANDING_CHARACTERS = 16_000

# Characters that are shown of a value of metadata.
_VALUE_CHARACTERS = 300


@dataclass(frozen=True)
class Piece:
    """A part of a line: plain, or a fact."""

    text: str
    fact: Followed | None = None


@dataclass(frozen=True)
class Line:
    """A line of an original, or the part of a very long one that is on this page."""

    number: int  # from 1
    pieces: list[Piece]
    begun_before: bool  # whether its beginning is on an earlier page


@dataclass(frozen=True)
class Shown:
    """A text that stands for the memory or tells of it, as the page shows it."""

    standing: Standing
    text: str
    left_out: int  # characters of it that are not shown


@dataclass(frozen=True)
class MemoryPage:
    """What the page of a memory shows."""

    memory: Listed
    characters: int  # of its text
    chunks: int
    tokens: int | None  # of its chunks; None: cut without a tokenizer
    number: int  # of this page of the original, from 1
    pages: int
    lines: list[Line]
    facts: list[Followed]  # of this page
    tally: Counter[Fate]
    blocks: list[Shown]
    by: int  # which of them the facts are followed by
    replaced: bool  # whether a block or a fold is sent in its place
    twins: list[str]  # handles of other memories of the same content
    used: list[Use]  # where it was compacted, and where it was asked back


def read_memory(memory: Memory, handle: str, number: int, by: int = 0) -> MemoryPage | None:
    """The page of a memory; None if there is no such memory.

    Args:
        memory: The memory file.
        handle: Of the memory.
        number: The page of the original, from 1; the last one if there are fewer.
        by: Which of the texts that are sent the facts are followed by, from 0; its own block is
            the first. A conversation sends one of them: a later fold takes a block's place.
    """
    try:
        about, text = memory.describe(handle), memory.text(handle)
    except NotFound:
        return None
    pages = page_count(text)
    number = min(max(1, number), pages)
    start, end = page_span(text, number)
    found = about.standing
    by = by if by < len(found) else 0
    # A note repeats lines of a text, it does not stand for it.
    replaced = bool(about.sent)
    first_page = first_page_end(memory, handle, text) if replaced else len(text)
    facts = follow(text, start, end, found[by].text if replaced else None, first_page)
    return MemoryPage(
        memory=about.memory,
        characters=len(text),
        chunks=about.chunks,
        tokens=about.tokens,
        number=number,
        pages=pages,
        lines=list(lines_of(text, start, end, facts)),
        facts=facts,
        tally=tally(facts),
        blocks=[
            Shown(
                one,
                one.text[:_STANDING_CHARACTERS],
                max(0, len(one.text) - _STANDING_CHARACTERS),
            )
            for one in found
        ],
        by=by,
        replaced=replaced,
        twins=about.twins,
        used=about.uses,
    )


def written(value: Any) -> str:
    """A value of metadata as a page shows it: short, and JSON unless it is a text."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[:_VALUE_CHARACTERS]}..."


def page_count(text: str) -> int:
    """The number of pages of an original; an empty one has a page, too."""
    return max(1, -(-len(text) // PAGE_CHARACTERS))


def page_span(text: str, number: int) -> tuple[int, int]:
    """Where a page begins and ends, given its number from 1; all pages together are the text."""
    return _page_end(text, number - 1), _page_end(text, number)


def _page_end(text: str, number: int) -> int:
    """Where the page of that number ends: after a line, if one ends near there."""
    if number >= page_count(text):
        return len(text)
    end = number * PAGE_CHARACTERS
    return text.rfind("\n", max(0, end - _SLACK), end) + 1 or end


def lines_of(text: str, start: int, end: int, facts: Sequence[Followed]) -> Iterator[Line]:
    """The lines of a part of a text, each cut where its facts begin and end."""
    number = text.count("\n", 0, start) + 1
    waiting = list(reversed(_apart(facts)))
    place = start
    while place < end:
        stop = text.find("\n", place, end)
        stop = end if stop < 0 else stop
        pieces: list[Piece] = []
        at = place
        while waiting and waiting[-1].start < stop:
            fact = waiting.pop()
            last = min(fact.end, stop)
            pieces += [Piece(text[at : fact.start])] if fact.start > at else []
            pieces.append(Piece(text[fact.start : last], fact))
            at = last
        pieces += [Piece(text[at:stop])] if stop > at else []
        yield Line(number, pieces, place == start and start > 0 and text[start - 1] != "\n")
        number += 1
        place = stop + 1


def _apart(facts: Sequence[Followed]) -> list[Followed]:
    """Facts that do not overlap: of those that do, the first, and the longest of these."""
    apart: list[Followed] = []
    for fact in sorted(facts, key=lambda one: (one.start, -one.end)):
        if not apart or fact.start >= apart[-1].end:
            apart.append(fact)
    return apart
