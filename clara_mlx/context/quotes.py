"""The exact lines of originals that fit a question best, as text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clara_mlx.compressors import ranking
from clara_mlx.compressors.question import is_thought
from clara_mlx.context.lines import Numbering, Passage, passages_near
from clara_mlx.context.search import Found
from clara_mlx.context.shown import Shown
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.tool_outputs.quoting import exact_line

# Characters of all texts together, about, up to which every line is ranked; above, only the lines
# near a hit are.
_RANK_EVERY_LINE = 1_000_000

# Characters before and after a hit that are near it.
_NEAR_HIT = 4_000

# Characters of a text up to which all of it is undressed, so that texts inside JSON are seen.
_SEEN_WHOLE = 1_000_000

# Characters before and after a hit whose lines belong to it: a chunk ends where it is full.
_AROUND_HIT = 300

# The same for what an agent thinks of: what it is about to work on is longer than a chunk.
_AROUND_HIT_OF_THOUGHT = 1_000

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class _Source:
    """A passage whose lines are candidates.

    Attributes:
        handle: The original's.
        passage: The passage.
        indices: The indices of its lines that are candidates.
        first: The number of candidates before these.
    """

    handle: str
    passage: Passage
    indices: NDArray[np.intp]
    first: int


class _Candidates:
    """The lines that are ranked, of one original after the other."""

    def __init__(self, found: Found, *, thought: bool) -> None:
        self._found = found
        self._thought = thought
        self.texts: list[str] = []
        self.bonuses: list[NDArray[np.float64]] = []
        self._sources: list[_Source] = []

    def add(self, handle: str, passage: Passage, near: Spans | None = None) -> None:
        """Add the lines of a passage that are not empty, of a part of it only if so wanted."""
        texts = passage.lines.texts
        says = {text: bool(text.strip()) for text in set(texts)}
        wanted = np.fromiter((says[text] for text in texts), bool, len(texts))
        if near is not None:
            inside = np.zeros(len(texts), bool)
            for start, end in near:
                some = passage.lines_in(start, end)
                inside[some.start : some.stop] = True
            wanted &= inside
        indices = np.flatnonzero(wanted)
        self._sources.append(_Source(handle, passage, indices, len(self.texts)))
        self.texts += [texts[index] for index in indices.tolist()]
        bonuses = np.zeros(len(texts))
        around = _AROUND_HIT_OF_THOUGHT if self._thought else _AROUND_HIT
        for bonus, hit in self._found.weighted_hits(handle, thought=self._thought):
            some = passage.lines_in(hit.start - around, hit.end + around)
            part = bonuses[some.start : some.stop]
            np.maximum(part, bonus, out=part)
        self.bonuses.append(bonuses[indices])

    def source(self, candidate: int) -> tuple[_Source, int]:
        """Where a candidate comes from: the source, and the line's index in its passage."""
        number = bisect_right(self._sources, candidate, key=lambda source: source.first) - 1
        source = self._sources[number]
        return source, int(source.indices[candidate - source.first])


def quote_lines(
    memory: Memory,
    question: str,
    found: Found,
    handles: Sequence[str],
    characters: int,
    shown: str = "",
) -> dict[str, str]:
    """The exact lines of originals that fit a question best, numbered; by handle, best first.

    They are exact but for what could pass for text around them, see `quoting.exact_line`, and
    for what a reader does not see, such as the codes of colours.

    Args:
        memory: The memory that keeps the originals.
        question: What was searched for.
        found: The search's result; lines in its hits come before others.
        handles: The originals to look at; one that does not exist is passed over.
        characters: Characters that the lines may have together.
        shown: Lines that are in this text are left out.
    """
    candidates = _Candidates(found, thought=is_thought(question))
    originals: dict[str, str] = {}
    for handle in handles:
        try:
            text = memory.text(handle)
        except ClaraError:  # forgotten since, or damaged
            continue
        originals[handle] = text
        near: Spans | None = None
        if len(text) * len(handles) > _RANK_EVERY_LINE:
            hits = [hit for hit in found.hits if hit.handle == handle]
            near = [(hit.start - _NEAR_HIT, hit.end + _NEAR_HIT) for hit in hits]
        if near is None or len(text) <= _SEEN_WHOLE:
            candidates.add(handle, Passage(text), near)
        else:
            for passage in passages_near(text, near):
                candidates.add(handle, passage)
    if not candidates.texts:
        return {}
    chosen = ranking.best_lines(
        candidates.texts,
        question,
        characters,
        np.concatenate(candidates.bonuses),
        Shown(shown) if shown else (),
    )
    by_handle: dict[str, list[tuple[Passage, int]]] = {}
    for candidate in chosen:
        source, index = candidates.source(candidate)
        by_handle.setdefault(source.handle, []).append((source.passage, index))
    return {
        handle: _quote(handle, originals[handle], places) for handle, places in by_handle.items()
    }


def _quote(handle: str, original: str, places: list[tuple[Passage, int]]) -> str:
    """The lines at some places of one original, in its order, under a heading."""
    numbering = Numbering(original)
    quoted: list[str] = []
    numbers: set[int] = set()
    for (start, _), passage, index in sorted(
        ((passage.span(index), passage, index) for passage, index in places),
        key=lambda place: place[0],
    ):
        numbers.add(numbering.at(start)[0])
        label = passage.label(index, numbering)
        quoted.append(f"{label}: {exact_line(passage.lines.texts[index])}")
    share = f"{len(numbers)} of {numbering.count} lines"
    return "\n".join([f"[{exact_line(handle)}: {share}]", *quoted])
