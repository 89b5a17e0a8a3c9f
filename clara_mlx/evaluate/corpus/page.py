"""The page a layout writes on: text, and which pieces of it answer which questions.

A layout marks every fact that it prints, also in distractors. A fact that occurs twice with
different answers is not asked, so every question that remains has one answer.
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
# Typical lengths of the parts of a short page, in characters.
_CORE = 170  # everything except distractors
_ITEM = 40
_LAST_LINE = 80


class Marked(NamedTuple):
    """A piece of text and the facts it states, each with the values of its question's slots."""

    text: str
    facts: tuple[tuple[str, dict[str, str]], ...]


class _Answer(NamedTuple):
    fact: str
    slots: dict[str, str]
    text: str
    span: Span


def mark(fact: str, text: str | int | Marked, **slots: str) -> Marked:
    """Mark text as stating a fact; marks nest where one piece of text states several facts."""
    known = ((fact, slots),)
    if isinstance(text, Marked):
        return Marked(text.text, text.facts + known)
    return Marked(str(text), known)


def underline(rng: random.Random, code: str) -> tuple[int, str]:
    """Choose a word of ``code`` before column 20; returns its column and the carets below it."""
    words = [word for word in re.finditer(r"\w+", code) if word.start() < 19]
    word = rng.choice(words)
    return word.start() + 1, " " * word.start() + "^" * len(word[0])


class Page:
    """One output being written.

    Args:
        names: Draws names and values of the split.
        room: Number of characters that repeated items and distractors should fill; 0 for as few
            items as possible.
        long: Whether the output may be longer than one chunk.

    Attributes:
        names: The argument of that name.
        rng: The source of chance of ``names``.
        long: The argument of that name.
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
        """Write pieces of text; returns their span."""
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
        """Write pieces of text and end the line; returns their span without the newline."""
        span = self.put(*parts)
        self.put("\n")
        return span

    def infer(self, fact: str, answer: str | int, span: Span, **slots: str) -> None:
        """Mark a fact that follows from the text at ``span`` but is not written there."""
        self._answers.append(_Answer(fact, slots, str(answer), span))

    def fill(
        self,
        write: Callable[[], object],
        low: int,
        high: int,
        share: float = 1.0,
        most: int = 1000,
    ) -> int:
        """Write an item ``low`` to ``high`` times, and more often while there is room.

        Args:
            write: Writes one item.
            low: Smallest number of items; 0 for distractors.
            high: Largest number of items unless there is room for more.
            share: Share of a long page's room that is used when this returns. A short page leaves
                room for what follows instead: for a last line, or after distractors for everything
                else.
            most: Largest number of items even if there is room for more; 19 where the output
                prints the number.

        Returns:
            The number of items written.
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

    def draw_count(self, low: int, high: int, each: int, rest: int) -> int:
        """Draw the number of items for an output that must know it before it writes them.

        Args:
            low: Smallest number of items.
            high: Largest number of items unless there is room for more.
            each: Approximate characters of one item.
            rest: Approximate characters of everything else.
        """
        return max(self.rng.randint(low, high), (self._room - rest) // each)

    @property
    def length(self) -> int:
        """Number of characters written so far."""
        return self._length

    @property
    def text(self) -> str:
        """The text written so far, without newlines at the end."""
        return "".join(self._parts).rstrip("\n")

    def probes(self, most: int) -> tuple[Probe, ...]:
        """Draw up to ``most`` unambiguous facts as probes, in the order of the text."""
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
            # A second question about the same words only if there are too few others.
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


def place(page: Page, path: str) -> tuple[str | Marked, ...]:
    """Where an error is, to be put on a page: ``path:line:column``."""
    line = mark("error_line", page.names.line())
    return mark("error_file", path), ":", line, ":", mark("error_column", page.rng.randint(1, 19))


def write_frame(page: Page, path: str) -> None:
    """Write the line of a Python traceback that says where the error is."""
    line, function = page.names.line(), page.names.snake()
    page.put('  File "', mark("error_file", path), '", line ', mark("error_line", line))
    page.line(", in ", mark("function", function))


def write_log(page: Page, share: float) -> None:
    """Write a program's log around what matters, up to a share of the page's room."""
    lines = log_lines(page.names)
    page.fill(lambda: page.line(next(lines)), 0, 0, share)


Layout = Callable[[Page], None]
