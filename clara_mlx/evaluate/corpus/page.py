"""The sheet a layout writes on: text, and which pieces of it answer which facts.

A layout marks every fact it prints, distractors too. Facts that come twice with different answers
ask nothing, so what remains has one answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from clara_mlx.evaluate.corpus.messages import log_lines
from clara_mlx.evaluate.corpus.names import Names
from clara_mlx.evaluate.probes.probe import ANSWER_CHARACTERS, Probe, kind_of
from clara_mlx.evaluate.probes.questions import make_probe
from clara_mlx.tool_outputs.facts import OPEN_VALUES

Span = tuple[int, int]
# About how long the parts of a short page are, in characters.
_CORE, _ITEM, _LAST_LINE = 170, 40, 80


class Marked(NamedTuple):
    """A piece of text and the facts that it answers, each with its question's slots."""

    text: str
    facts: tuple[tuple[str, dict[str, str]], ...]


class _Answer(NamedTuple):
    fact: str
    slots: dict[str, str]
    text: str
    span: Span


def mark(fact: str, text: str | int | Marked, **slots: str) -> Marked:
    """Text that answers a fact; marks nest where one piece answers several."""
    known = ((fact, slots),)
    if isinstance(text, Marked):
        return Marked(text.text, text.facts + known)
    return Marked(str(text), known)


def underlined(rng: random.Random, code: str) -> tuple[int, str]:
    """A word of ``code`` that starts before column 20: its first column and carets under it."""
    words = [word for word in re.finditer(r"\w+", code) if word.start() < 19]
    word = rng.choice(words)
    return word.start() + 1, " " * word.start() + "^" * len(word[0])


class Page:
    """One output being written.

    Args:
        names: draws of the split.
        room: characters that repeated items and distractors should fill; 0 for the fewest.
        long: whether the output may be longer than one chunk.

    Attributes:
        long: as given.
    """

    def __init__(self, names: Names, room: int = 0, long: bool = False) -> None:
        self.names = names
        self.rng = names.rng
        self.long = long
        self._room = room
        self._parts: list[str] = []
        self._length = 0
        self._answers: list[_Answer] = []

    def put(self, *parts: str | Marked) -> Span:
        """Write pieces; returns where they stand."""
        start = self._length
        for part in parts:
            text = part if isinstance(part, str) else part.text
            begin = self._length
            self._parts.append(text)
            self._length += len(text)
            if not isinstance(part, str):
                for fact, slots in part.facts:
                    self._answers.append(_Answer(fact, slots, text, (begin, self._length)))
        return start, self._length

    def line(self, *parts: str | Marked) -> Span:
        """Write pieces and end the line; the span leaves the newline out."""
        span = self.put(*parts)
        self.put("\n")
        return span

    def infer(self, fact: str, answer: str | int, span: Span, **slots: str) -> None:
        """A fact that follows from what stands at ``span`` without standing there itself."""
        self._answers.append(_Answer(fact, slots, str(answer), span))

    def fill(
        self,
        write: Callable[[], object],
        low: int,
        high: int,
        share: float = 1.0,
        most: int = 1000,
    ) -> int:
        """Repeat an item ``low`` to ``high`` times, and further while there is room.

        Args:
            write: writes one item.
            low: fewest repeats; 0 for distractors.
            high: most repeats unless there is room for more.
            share: of a long page's room, how much is used in all when this returns. A short page
                leaves room for what follows instead: for a last line, or after distractors for
                everything else.
            most: no more than this even if there is room; 19 where the output prints how many.

        Returns:
            How often ``write`` was called.
        """
        if self.long:
            limit = share * self._room
        elif low == 0:
            limit = self._room - _CORE
        else:
            limit = self._room - (_ITEM if share == 1.0 else _LAST_LINE)
        repeats = self.rng.randint(low, high)
        done = 0
        while done < repeats or (self._length < limit and done < most):
            write()
            done += 1
        return done

    def rows(self, low: int, high: int, each: int, rest: int) -> int:
        """How many items to draw where their number must be known first.

        Args:
            low: fewest items.
            high: most items unless there is room for more.
            each: characters of one item, about.
            rest: characters of everything else, about.
        """
        return max(self.rng.randint(low, high), (self._room - rest) // each)

    @property
    def length(self) -> int:
        """Characters written so far."""
        return self._length

    @property
    def text(self) -> str:
        """What was written, without the last newline."""
        return "".join(self._parts).rstrip("\n")

    def probes(self, most: int) -> tuple[Probe, ...]:
        """Up to ``most`` of the unambiguous facts in the order of the text, drawn at random."""
        known: dict[tuple[object, ...], _Answer | None] = {}
        for answer in self._answers:
            key = (answer.fact, *answer.slots.values())
            first = known.setdefault(key, answer)
            if first is not None and first.text != answer.text:
                known[key] = None
        usable = [
            answer
            for answer in known.values()
            if answer and len(answer.text) <= ANSWER_CHARACTERS and answer.text.strip()
        ]
        self.rng.shuffle(usable)
        if len(usable) > most:
            # A second question about the same words only where room is left.
            by_span = {answer.span: answer for answer in usable}
            again = [answer for answer in usable if by_span[answer.span] is not answer]
            usable = [*by_span.values(), *again][:most]
        usable.sort(key=lambda answer: answer.span)
        return tuple(
            make_probe(
                fact, text, span, self.rng, kind_of(text) if fact in OPEN_VALUES else None, **slots
            )
            for fact, slots, text, span in usable
        )


def write_log(page: Page, share: float) -> None:
    """A program's log in front of what matters, up to a share of the page's room."""
    lines = log_lines(page.names)
    page.fill(lambda: page.line(next(lines)), 0, 0, share)


Layout = Callable[[Page], None]
