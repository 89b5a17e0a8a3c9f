"""A question to the memory, answered as text: what the model says, and exact lines behind it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from clara_mlx.context import lines
from clara_mlx.context.quoting import exact_line, indent, quote_markers
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory, asking
from clara_mlx.store.latents import OtherModel
from clara_mlx.store.results import Hit

#: Characters that the lines of one answer may have together.
ANSWER_CHARACTERS = 3_000

# The number of hits that the model reads, and as many again that words find.
_HITS = 5

# The number of hits by words in one handle's text.
_HITS_INSIDE = 50

# Characters of all texts together, about, up to which every line is ranked; above, only the lines
# near a hit are.
_RANK_EVERY_LINE = 1_000_000

# Characters before and after a hit that are near it.
_NEAR_HIT = 4_000

# Lines that are searched for in what is shown before a table of its parts is worth its time.
_SEARCHED_ONE_BY_ONE = 500

# Characters of such a part, at most.
_PART = 8

# Bonus of a line in the best hit that the model read: this share of the best line's score is added
# to its own. In the second hit it gets half of that, in the third hit a third.
_IN_EVIDENCE = 0.5

# The same for hits by words.
_IN_HIT_BY_WORDS = 0.15

# Bonus of a line that was printed by a command that the question names.
_BY_COMMAND = 0.5

# The number of newest commands that a question is compared with.
_COMMANDS = 2_000

# A word counts if at most this many commands have it.
_RARE = 3

# The number of commands whose outputs are looked at.
_COMMANDS_LOOKED_AT = 2


def ask(
    memory: Memory,
    question: str,
    where: Mapping[str, Any] | None = None,
    handle: str | None = None,
) -> str:
    """The model's answer, if there is a model, and the exact lines that fit the question best.

    Args:
        memory: The memory to ask.
        question: One question.
        where: Narrows what is searched.
        handle: Look only at the text behind this handle.

    Raises:
        ClaraError: No memory has that handle.
    """
    if not question.strip():
        return "ask_memory: say what to look for in `question`"
    if handle is not None:
        memory.original(handle)  # raises if there is none
    found = search(memory, question, where, handle)
    handles = found.handles if handle is None else [handle]
    quotes = quote_lines(memory, question, found, handles, ANSWER_CHARACTERS)
    if quotes:
        return "\n".join([*found.answer_lines, *quotes.values()])
    return asking.NOTHING_FOUND if handle is None else f"[{handle}: no line was found; see expand]"


@dataclass(frozen=True)
class Found:
    """What a search of the memory gave.

    Attributes:
        answer: What the model says; None without a model, or without evidence.
        evidence: The hits that the model read.
        by_words: The hits that words found.
        by_command: Handles of the outputs of commands that the question names.
    """

    answer: str | None
    evidence: list[Hit]
    by_words: list[Hit]
    by_command: list[str]

    @property
    def answer_lines(self) -> list[str]:
        """The line that gives the model's answer, if there is one."""
        # Its further lines are indented, so that none of them looks like a handle's heading.
        return [f"answer: {indent(quote_markers(self.answer))}"] if self.answer else []

    @property
    def hits(self) -> list[Hit]:
        """All hits, the evidence first."""
        return self.evidence + self.by_words

    @property
    def handles(self) -> list[str]:
        """The handles of those outputs, then of every hit."""
        return list(dict.fromkeys(self.by_command + [hit.handle for hit in self.hits]))

    def weighted_hits(self, handle: str) -> list[tuple[float, Hit]]:
        """The best hits in one original, each with the bonus of its lines."""
        both = ((self.evidence[:_HITS], _IN_EVIDENCE), (self.by_words[:_HITS], _IN_HIT_BY_WORDS))
        return [
            (bonus / rank, hit)
            for hits, bonus in both
            for rank, hit in enumerate(hits, 1)
            if hit.handle == handle
        ]


def search(
    memory: Memory, question: str, where: Mapping[str, Any] | None, handle: str | None = None
) -> Found:
    """Search the memory by words, by the commands that a question names, and by the model.

    What words find is kept whatever the model says, which may not know such outputs. The
    transcripts behind folds are left out, because each of their blocks has its own original.

    Args:
        memory: The memory to search.
        question: What to look for.
        where: Narrows the search.
        handle: Search only the text behind this handle.
    """
    where = {**(where or {}), **({"fold": None} if handle is None else {"handle": handle})}
    by_command = [] if handle else _handles_by_command(memory, question, where)
    by_words = memory.recall(question, _HITS_INSIDE if handle else _HITS, where, mode="text")
    if memory.answers:
        with suppress(OtherModel):  # then only the text can be searched
            answer = memory.ask(question, _HITS, where)
            if answer.evidence:
                return Found(answer.text, answer.evidence, by_words, by_command)
    return Found(None, [], by_words, by_command)


def _handles_by_command(memory: Memory, question: str, where: Mapping[str, Any]) -> list[str]:
    """Handles of the outputs of commands that share rare words with the question, best first."""
    newest = memory.list(where, _COMMANDS)
    commands = {one.handle: str(one.metadata.get("command") or "") for one in newest}
    best = lines.lines_sharing_words(list(commands.values()), question, _RARE)
    return [list(commands)[index] for index in best[:_COMMANDS_LOOKED_AT]]


def quote_lines(
    memory: Memory,
    question: str,
    found: Found,
    handles: Sequence[str],
    characters: int,
    shown: str = "",
) -> dict[str, str]:
    """The exact lines of originals that fit a question best, numbered; by handle, best first.

    They are exact but for what could pass for text around them; see `quoting.exact_line`.

    Args:
        memory: The memory that keeps the originals.
        question: What was searched for.
        found: The search's result; lines in its hits come before others.
        handles: The originals to look at; one that does not exist is passed over.
        characters: Characters that the lines may have together.
        shown: Lines that are in this text are left out.
    """
    candidates: list[tuple[str, lines.Line]] = []
    counts: dict[str, int] = {}
    already = _Shown(shown)
    bonuses: dict[int, float] = {}
    for handle in handles:
        try:
            text = memory.text(handle)
        except ClaraError:  # forgotten since, or damaged
            continue
        counts[handle] = text.count("\n") + 1
        if len(text) * len(handles) > _RANK_EVERY_LINE:
            hits_inside = [hit for hit in found.hits if hit.handle == handle]
            near = [(hit.start - _NEAR_HIT, hit.end + _NEAR_HIT) for hit in hits_inside]
            ranked = lines.lines_near(text, near)
        else:
            ranked = lines.split_into_lines(text)
        first = len(candidates)
        for line in ranked:
            stripped = line.text.strip()
            if stripped and not (shown and stripped in already):
                candidates.append((handle, line))
        if handle in found.by_command:
            bonuses.update(dict.fromkeys(range(first, len(candidates)), _BY_COMMAND))
        for bonus, hit in found.weighted_hits(handle):
            for index in _lines_in_hit(candidates, first, hit):
                bonuses[index] = max(bonus, bonuses.get(index, 0.0))
    texts = [line.text for _, line in candidates]
    chosen = lines.best_lines(texts, question, characters, bonuses)
    quotes = {}
    for handle in dict.fromkeys(candidates[index][0] for index in chosen):
        quoted = [candidates[i][1] for i in sorted(chosen) if candidates[i][0] == handle]
        share = f"{len({line.number for line in quoted})} of {counts[handle]} lines"
        quotes[handle] = f"[{exact_line(handle)}: {share}]\n" + "\n".join(map(_with_number, quoted))
    return quotes


def _lines_in_hit(candidates: list[tuple[str, lines.Line]], first: int, hit: Hit) -> range:
    """The indices, from ``first`` on, of the lines that a hit has a part of."""
    begin = bisect_right(
        candidates, hit.start, first, key=lambda one: one[1].start + len(one[1].text)
    )
    return range(begin, bisect_left(candidates, hit.end, begin, key=lambda one: one[1].start))


class _Shown:
    """Tells whether lines are part of a text; of many lines, most without a search through it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[str, bool] = {}
        self._parts: dict[int, set[str]] = {}  # by size, all parts of the text

    def __contains__(self, line: str) -> bool:
        if line not in self._found:
            self._found[line] = self._may_have(line) and line in self._text
        return self._found[line]

    def _may_have(self, line: str) -> bool:
        """False if the line's beginning or its end is no part of the text."""
        if len(self._found) < _SEARCHED_ONE_BY_ONE:
            return True
        size = min(len(line), _PART)
        if size not in self._parts:
            last = len(self._text) - size
            self._parts[size] = {self._text[i : i + size] for i in range(last + 1)}
        return line[:size] in self._parts[size] and line[-size:] in self._parts[size]


def _with_number(line: lines.Line) -> str:
    place = f"{line.number}, from character {line.before + 1}" if line.before else line.number
    return f"{place}: {exact_line(line.text)}"
