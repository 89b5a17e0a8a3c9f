"""What the rules write into: the facts that a text states, and which of them have one answer.

A rule adds everything it finds. A fact that was found twice with different answers asks nothing,
so what remains is unambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from clara_mlx.evaluate.probes.probe import ANSWER_CHARACTERS, Probe, kind_of
from clara_mlx.evaluate.probes.questions import make_probe

# Rules read no more of a line than this, which bounds what a hostile line can cost.
LINE_CHARACTERS = 2_000

# Their answers can be anything, so the kind follows from the answer.
_VALUES = {"value", "value_in", "old_value", "new_value", "expected", "actual", "left", "right"}


class Line(NamedTuple):
    """One line of the text, without its end, and where it starts."""

    start: int
    text: str


class _Answer(NamedTuple):
    text: str
    span: tuple[int, int] | None  # None: known, but not printed


def lines(text: str) -> list[Line]:
    """The lines of ``text``; what a line has beyond `LINE_CHARACTERS` is not looked at."""
    found = []
    start = 0
    for line in text.split("\n"):
        found.append(Line(start, line[:LINE_CHARACTERS].removesuffix("\r")))
        start += len(line) + 1
    return found


class Facts:
    """The facts found so far."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, tuple[tuple[str, str], ...]], _Answer | None] = {}

    def add(
        self, fact: str, line: Line, match: re.Match[str], group: str | int, **slots: str
    ) -> None:
        """The text of a match's group answers ``fact``; a group that did not match answers none."""
        if match[group] is not None:
            begin, end = match.span(group)
            self.put(fact, match[group], (line.start + begin, line.start + end), **slots)

    def put(self, fact: str, answer: str, span: tuple[int, int], **slots: str) -> None:
        """``answer`` answers ``fact``; the evidence stands at ``span``."""
        self._put(fact, answer, span, slots)

    def rival(self, fact: str, answer: str, **slots: str) -> None:
        """``answer`` is true but not printed: it asks nothing, and any other is one of two."""
        self._put(fact, answer, None, slots)

    def _put(
        self, fact: str, answer: str, span: tuple[int, int] | None, slots: dict[str, str]
    ) -> None:
        key = fact, tuple(sorted(slots.items()))
        known = self._answers.setdefault(key, _Answer(answer, span))
        if known is None:
            return
        if known.text != answer:
            self._answers[key] = None
        elif known.span is None:
            self._answers[key] = _Answer(answer, span)

    def drop(self, fact: str, **slots: str) -> None:
        """``fact`` has an answer that no rule can give, so it is not asked, whatever else says."""
        self._answers[fact, tuple(sorted(slots.items()))] = None

    def answers(self) -> Iterator[tuple[str, dict[str, str], str]]:
        """Facts with one answer, their questions' slots, and the answer."""
        for (fact, slots), answer in self._answers.items():
            if answer is not None and answer.span is not None:
                yield fact, dict(slots), answer.text

    def probes(self) -> tuple[Probe, ...]:
        """The facts with one answer that a probe can have, in the order of the text."""
        probes = []
        for (fact, slots), answer in self._answers.items():
            if answer is None or answer.span is None or not _askable(answer.text):
                continue
            if all(_askable(value) for _, value in slots):
                kind = kind_of(answer.text) if fact in _VALUES else None
                probes.append(make_probe(fact, answer.text, answer.span, None, kind, **dict(slots)))
        return tuple(sorted(probes, key=lambda probe: (probe.start, probe.end)))


def _askable(text: str) -> bool:
    return 0 < len(text) <= ANSWER_CHARACTERS and text == text.strip() and text.isprintable()


def message(facts: Facts, line: Line, match: re.Match[str], group: str, **slots: str) -> None:
    """A one-line error message, and the name that it is about where its wording is well known."""
    facts.add("error_message", line, match, group, **slots)
    text = match[group]
    if text is None:
        return
    for fact, pattern in _ABOUT:
        about = pattern.search(text)
        if about:
            begin, end = about.span(1)
            offset = line.start + match.start(group)
            facts.put(fact, about[1], (offset + begin, offset + end))


_ABOUT = tuple(
    (fact, re.compile(pattern))
    for fact, pattern in (
        ("missing_module", r"^No module named '([\w.]+)'"),
        ("missing_module", r'implementation or library stub for module named "([\w.]+)"'),
        ("missing_file", r"^\[Errno 2\] No such file or directory: '([^']+)'$"),
        ("missing_file", r"^(\S+): No such file or directory$"),
        ("undefined_name", r"^name '(\w+)' is not defined"),
        ("undefined_name", r'^Name "(\w+)" is not defined$'),
        ("undefined_name", r"^Undefined name `(\w+)`$"),
        ("undefined_name", r"undefined reference to [`'\u2018](\w+)['\u2019]$"),
        ("undefined_name", r"^undefined: (\w+)$"),
        ("undefined_name", r"^['\u2018](\w+)['\u2019] undeclared"),
        ("undefined_name", r"^cannot find (?:value|function|type|macro) `(\w+)` in this scope$"),
        ("unused_name", r"^`([\w.]+)` imported but unused$"),
        ("unused_name", r"^Local variable `(\w+)` is assigned to but never used$"),
        ("unused_name", r"^unused (?:variable|parameter):? [`'\u2018](\w+)['\u2019`]$"),
        ("unused_name", r"^declared and not used: (\w+)$"),
        ("actual_type", r'\(got "([^"]+)", expected "[^"]+"\)$'),
        ("expected_type", r'\(got "[^"]+", expected "([^"]+)"\)$'),
        ("actual_type", r'has incompatible type "([^"]+)"; expected "[^"]+"$'),
        ("expected_type", r'has incompatible type "[^"]+"; expected "([^"]+)"$'),
        ("actual_type", r'\(expression has type "([^"]+)", variable has type "[^"]+"\)$'),
        ("expected_type", r'\(expression has type "[^"]+", variable has type "([^"]+)"\)$'),
        ("callee", r'^Argument \S+ to "(\w+)" has incompatible type'),
    )
)
