"""Measures how a pattern's time grows, on repeated units made from the pattern itself.

What recheck proves, it proves for one search in JavaScript's words. Here Python's own engine runs,
as the source uses it, on each character that the pattern tells apart, on each pair of them, on what
its parts match, and on its beginnings with one repeat pumped up.
"""

from __future__ import annotations

import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from time import thread_time
from typing import Any

from pattern_check.collect import Pattern
from pattern_check.javascript import alphabet, matched

# Lengths of the texts. What is exponential shows in the first, and is stopped there.
SHORT = 40
LENGTHS = (4_096, 16_384)

# Seconds for the middle length below which a text is not worth another look.
_QUICK = 0.001

# How much longer a text four times as long may take; quadratic time is sixteen times.
_MOST_GROWTH = 8.0

# Seconds for the longest text that are too many in any case: a repeat may have an end, far away.
_LONG = 0.025

# Seconds after which a run is stopped.
_MOST_SECONDS = 2

# The most characters that a pattern tells apart; beyond, pairs would be too many.
_MOST_CHARACTERS = 24


@dataclass(frozen=True)
class Slow:
    """A unit on which a pattern is slow, or the slowest one."""

    unit: str
    seconds: float
    growth: float

    @property
    def is_finding(self) -> bool:
        """Whether the time grows faster than the text, or is long for any reason."""
        return self.growth > _MOST_GROWTH or self.seconds > _LONG

    def __str__(self) -> str:
        longest = LENGTHS[-1]
        return (
            f"{self.unit[:80]!r} repeated: {self.seconds * 1e3:.1f} ms for {longest:,} characters"
        )


class _Stopped(Exception):
    pass


def slowest(pattern: Pattern) -> Slow:
    """The unit on which a pattern's time grows fastest, with the time for the longest text."""
    run = _runner(pattern)
    worst = Slow("", 0.0, 0.0)
    for head, unit, tail in _attacks(pattern):
        found = _measure(run, head, unit, tail)
        if found.is_finding:
            return found
        worst = max(worst, found, key=lambda one: one.seconds)
    return worst


def _measure(run: Callable[[str], Any], head: str, unit: str, tail: str) -> Slow:
    shown = f"{head}({unit}){tail}" if head or tail else unit

    def seconds(length: int) -> float:
        text = head + unit * (length // len(unit)) + tail
        return _timed(run, text)

    if seconds(SHORT) > _MOST_SECONDS / 4:
        return Slow(shown, float(_MOST_SECONDS), float("inf"))
    first = seconds(LENGTHS[0])
    if first < _QUICK:
        return Slow(shown, first * LENGTHS[1] / LENGTHS[0], 1.0)
    first = min(first, seconds(LENGTHS[0]))
    second = min(seconds(LENGTHS[1]) for _ in range(2))
    return Slow(shown, second, second / max(first, _QUICK / 4))


def _timed(run: Callable[[str], Any], text: str) -> float:
    """Seconds of processor time; `re` lets itself be interrupted by a signal."""

    def stop(signum: int, frame: Any) -> None:
        raise _Stopped

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _MOST_SECONDS)
    started = thread_time()
    try:
        run(text)
        return thread_time() - started
    except _Stopped:
        return float(_MOST_SECONDS)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _runner(pattern: Pattern) -> Callable[[str], Any]:
    compiled = re.compile(pattern.text, pattern.flags)
    if pattern.use == "scan":
        return lambda text: sum(1 for _ in compiled.finditer(text))
    method = getattr(compiled, pattern.use)
    return lambda text: method(text)


def _attacks(pattern: Pattern) -> Iterator[tuple[str, str, str]]:
    """Texts as beginning, repeated unit and end."""
    tree = list(parser.parse(pattern.text, pattern.flags))
    characters = _told_apart(tree, pattern)
    parts = list(dict.fromkeys(_parts(tree, pattern.flags, characters, "")))
    units = [*characters, *(a + b for a, b in product(characters, repeat=2) if a != b)]
    units += [head + body for head, body in parts]
    units += [head + body + "\n" for head, body in parts]
    for unit in dict.fromkeys(filter(None, units)):
        yield "", unit, ""
    for head, body in parts:
        for tail in ("", "\n", "\x00", "a"):
            if head and body:
                yield head, body, tail


def _told_apart(tree: list[Any], pattern: Pattern) -> list[str]:
    """One of all characters that the pattern's sets treat alike, most letters first."""
    sets = list(_sets(tree, pattern.flags, alphabet(pattern.text, pattern.flags)))
    seen: dict[tuple[bool, ...], str] = {}
    for character in "a1 \n_.A/" + alphabet(pattern.text, pattern.flags):
        seen.setdefault((*(character in one for one in sets), character == "\n"), character)
    return list(seen.values())[:_MOST_CHARACTERS]


def _sets(tree: list[Any], flags: int, characters: str) -> Iterator[frozenset[str]]:
    for kind, value in tree:
        if kind in (op.LITERAL, op.NOT_LITERAL, op.IN, op.ANY):
            yield matched((kind, value), flags, characters)
        for inside, inner in _inside(kind, value, flags):
            yield from _sets(inside, inner, characters)


def _inside(kind: Any, value: Any, flags: int) -> Iterator[tuple[list[Any], int]]:
    """The sequences inside an item, with their flags."""
    if kind is op.SUBPATTERN:
        yield list(value[3]), (flags | value[1]) & ~value[2]
    elif kind is op.BRANCH:
        yield from ((list(one), flags) for one in value[1])
    elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        yield list(value[2]), flags
    elif kind is op.ATOMIC_GROUP:
        yield list(value), flags
    elif kind in (op.ASSERT, op.ASSERT_NOT):
        yield list(value[1]), flags


def _parts(
    tree: list[Any], flags: int, characters: list[str], head: str
) -> Iterator[tuple[str, str]]:
    """For each beginning of each sequence, what comes before it and what it matches itself.

    A repeat gives its body alone, after what comes before it.
    """
    body = ""
    for kind, value in tree:
        for inside, inner in _inside(kind, value, flags):
            yield from _parts(inside, inner, characters, head + body)
        one = _sample((kind, value), flags, characters)
        if kind in (op.LITERAL, op.NOT_LITERAL, op.IN, op.ANY):
            fitting = matched((kind, value), flags, "".join(characters))
            yield from (
                (head + body, character) for character in characters if character in fitting
            )
        body += one
        yield head, body
        yield head + body, one


def _sample(item: Any, flags: int, characters: list[str]) -> str:
    """A short text that an item matches, with each repeat taken once at least."""
    kind, value = item
    if kind is op.LITERAL:
        return chr(value)
    if kind in (op.NOT_LITERAL, op.IN, op.ANY):
        fitting = matched(item, flags, "".join(characters))
        return next((character for character in characters if character in fitting), "")
    if kind in (op.ASSERT, op.ASSERT_NOT, op.AT, op.GROUPREF):
        return ""
    sequences = list(_inside(kind, value, flags))
    if not sequences:
        return ""
    inside, flags = sequences[0]
    text = "".join(_sample(one, flags, characters) for one in inside)
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        return text * min(max(1, value[0]), SHORT) if value[1] else ""
    return text
