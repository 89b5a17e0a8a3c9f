"""A question to the memory, answered as text: what the model says, and exact lines behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from clara_mlx.context import lines
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory, asking
from clara_mlx.store.results import Hit
from clara_mlx.store.space import OtherModel

#: Characters of the lines in one answer.
ANSWER_CHARACTERS = 3_000

# Hits that the model reads, and as many again that words find.
_HITS = 5

# Hits in one handle's text; where texts are too long together, only lines near a hit are ranked.
_HITS_INSIDE, _EVERY_LINE, _NEAR = 50, 1_000_000, 4_000

# What speaks for a line of the best hit beside its words, as a share of the best line's score; of
# the second hit half of that, of the third a third. The lines that the model was given are shown.
_IN_EVIDENCE, _BY_WORDS = 0.5, 0.15

# Commands that a question is compared with, the newest; how many of them may share a word that
# counts; how many are looked at; and what speaks for a line that they printed.
_COMMANDS, _RARE, _OF_COMMANDS, _BY_COMMAND = 2_000, 3, 2, 0.5


def ask(
    memory: Memory,
    question: str,
    where: Mapping[str, Any] | None = None,
    handle: str | None = None,
) -> str:
    """An answer from memory tokens, with a model, and the exact lines that fit the question best.

    Args:
        memory: what is asked.
        question: one question.
        where: narrows what is searched.
        handle: only the text behind it is looked at.

    Raises:
        ClaraError: no memory has that handle.
    """
    if not question.strip():
        return "ask_memory: say what to look for in `question`"
    if handle is not None:
        memory.original(handle)  # raises if there is none
    found = search(memory, question, where, handle)
    handles = found.handles if handle is None else [handle]
    told = quoted(memory, question, found, handles, ANSWER_CHARACTERS)
    if told:
        return "\n".join(([f"answer: {found.said}"] if found.said else []) + list(told.values()))
    return asking.NOTHING_FOUND if handle is None else f"[{handle}: no line was found; see expand]"


@dataclass(frozen=True)
class Found:
    """An answer (None without a model, or evidence), the hits it was given, and those by words.

    ``by_command`` are handles of what the commands that the question names had printed.
    """

    said: str | None
    evidence: list[Hit]
    by_words: list[Hit]
    by_command: list[str]

    @property
    def hits(self) -> list[Hit]:
        """All of them, the evidence first."""
        return self.evidence + self.by_words

    @property
    def handles(self) -> list[str]:
        """Of the originals of those commands, and of those with a hit."""
        return list(dict.fromkeys(self.by_command + [hit.handle for hit in self.hits]))

    def shares(self, handle: str) -> list[tuple[float, Hit]]:
        """The best hits in one original, with what speaks for their lines."""
        both = ((self.evidence[:_HITS], _IN_EVIDENCE), (self.by_words[:_HITS], _BY_WORDS))
        every = [(share / rank, hit) for hits, share in both for rank, hit in enumerate(hits, 1)]
        return [(share, hit) for share, hit in every if hit.handle == handle]


def search(
    memory: Memory, question: str, where: Mapping[str, Any] | None, handle: str | None = None
) -> Found:
    """What the model says, and hits.

    What words find is there whatever the model thinks of it: it may not know such outputs. Only
    one handle's text is searched if it is given; else all but what a fold stands for: it has
    blocks, and each of them has its own original.
    """
    where = {**(where or {}), **({"fold": None} if handle is None else {"handle": handle})}
    by_command = [] if handle else _by_command(memory, question, where)
    by_words = memory.recall(question, _HITS_INSIDE if handle else _HITS, where, mode="text")
    if memory.clara is not None:
        with suppress(OtherModel):  # of which only the text can be searched
            answer = memory.ask(question, _HITS, where)
            if answer.evidence:
                return Found(answer.text, answer.evidence, by_words, by_command)
    return Found(None, [], by_words, by_command)


def _by_command(memory: Memory, question: str, where: Mapping[str, Any]) -> list[str]:
    """Handles of what commands printed that share a rare word with the question, newest first."""
    newest = memory.list(where, _COMMANDS)
    named = {one.handle: str(one.metadata.get("command") or "") for one in newest}
    best = lines.sharing(list(named.values()), question, _RARE)
    return [list(named)[index] for index in best[:_OF_COMMANDS]]


def quoted(
    memory: Memory,
    question: str,
    found: Found,
    handles: Sequence[str],
    characters: int,
    shown: str = "",
) -> dict[str, str]:
    """The exact lines of originals that fit a question best, numbered, by handle, best first.

    Args:
        memory: that keeps the originals.
        question: what was searched.
        found: hits; lines in them come before others.
        handles: of the originals whose lines are looked at; what is not there is passed over.
        characters: that the lines may have together.
        shown: lines that stand in it are left out.
    """
    candidates: list[tuple[str, lines.Line]] = []
    counts: dict[str, int] = {}
    besides: dict[int, float] = {}
    for handle in handles:
        try:
            original = memory.original(handle)
        except ClaraError:  # forgotten since, or damaged
            continue
        text = original.decode("utf-8", "replace") if isinstance(original, bytes) else original
        every = lines.split(text)
        counts[handle] = every[-1].number
        if len(text) * len(handles) > _EVERY_LINE:
            every = _near(every, [hit for hit in found.hits if hit.handle == handle])
        shares = found.shares(handle)
        for line in every:
            if not line.text.strip() or (shown and line.text.strip() in shown):
                continue
            end = line.start + len(line.text)
            speaks = [share for share, hit in shares if hit.start < end and line.start < hit.end]
            speaks += [_BY_COMMAND] * (handle in found.by_command)
            besides[len(candidates)] = max(speaks, default=0.0)
            candidates.append((handle, line))
    chosen = lines.about([line.text for _, line in candidates], question, characters, besides)
    told = {}
    for handle in dict.fromkeys(candidates[index][0] for index in chosen):
        mine = [candidates[index][1] for index in sorted(chosen) if candidates[index][0] == handle]
        of = f"{len({line.number for line in mine})} of {counts[handle]} lines"
        told[handle] = f"[{handle}: {of}]\n" + "\n".join(map(_numbered, mine))
    return told


def _near(every: list[lines.Line], hits: list[Hit]) -> list[lines.Line]:
    """The lines near a hit, in one pass over both."""
    spans = iter(sorted((hit.start - _NEAR, hit.end + _NEAR) for hit in hits))
    near: list[lines.Line] = []
    start, end = next(spans, (0, -1))
    for line in every:
        while end < line.start and (span := next(spans, None)):
            start, end = span
        if start <= line.start <= end:
            near.append(line)
    return near


def _numbered(line: lines.Line) -> str:
    place = f"{line.number}, from character {line.before + 1}" if line.before else line.number
    return f"{place}: {line.text}"
