"""Repeated units that patterns may stumble over, and how long a call takes for such texts."""

from __future__ import annotations

import functools
import gc
import random
import re
import string
import time
from collections.abc import Callable, Iterator
from itertools import product

# The parser of regular expressions has no public name; it is the same in Python 3.11 to 3.13.
from re import _constants as constants
from re import _parser as parser
from types import ModuleType
from typing import Any

LINE_ENDS = ("\n", "\r\n", "\r", "\u2028", "\n\n", "\n \n")
CHARACTERS = (*string.printable[:95], "\t", "\x1b[0m", "\0", "漢", "é", "\ud800", *LINE_ENDS)

#: Characters that the patterns name.
NAMED = "./:-_=@#\"'`()[]{}<>\\,;+*~^$|%&? \n\t01aAeEf"

#: What hung or slowed the rules once.
KNOWN = (
    *(
        "\n",
        "../",
        "a/",
        "./",
        "1.",
        "v1.2.",
        "# x\n\n\n",
        "a.py::b[",
        "eyJ-",
        "1a://",
        "a - a [\n",
    ),
    *("-----BEGIN PRIVATE KEY-----", "error: a\n", "[a]\n", "= in 1s", "> a@1", "line 1 "),
)


@functools.cache
def openings(modules: tuple[ModuleType, ...]) -> list[str]:
    """The beginnings of texts that the patterns of modules match, from two characters on."""
    found: dict[str, None] = {}
    for module in modules:
        for pattern in _patterns(list(vars(module).values())):
            for example in _examples(parser.parse(pattern.pattern, pattern.flags)):
                for end in (*range(2, min(len(example), 12)), len(example)):
                    found[example[:end]] = None
    return [unit for unit in found if len(unit) > 1]


def units(modules: tuple[ModuleType, ...], known: int, others: int, seed: str) -> list[str]:
    """Units to repeat: at most so many of those that were slow once, and of all others."""
    pairs = ["".join(pair) for pair in product(NAMED, repeat=2)]
    rng = random.Random(seed)
    chosen: dict[str, None] = {}
    for some, most in ((KNOWN, known), ([*CHARACTERS, *openings(modules), *pairs], others)):
        chosen.update(dict.fromkeys(rng.sample(some, min(most, len(some)))))
    return list(chosen)


def cpu_seconds(prepare: Callable[[], Callable[[], None]], times: int = 1) -> float:
    """The least time of this thread on a processor that a call takes, prepared anew each time.

    Without the collection of garbage, which takes the longer the more there is of other tests.
    """
    best = float("inf")
    for _ in range(times):
        act = prepare()
        gc.disable()
        start = time.thread_time()
        try:
            act()
            best = min(best, time.thread_time() - start)
        finally:
            gc.enable()
    return best


def slowness() -> float:
    """How many times longer than on an idle machine of 2024 regular expressions take now, at least
    1."""
    text = "ab " * 30_000

    def work() -> None:
        for _ in re.finditer(r"\w+", text):
            pass

    return max(1.0, cpu_seconds(lambda: work, 3) / 0.006)


def _patterns(values: list[Any], depth: int = 4) -> Iterator[re.Pattern[str]]:
    """The compiled patterns among values, in tables and bound to their methods, too."""
    for value in values:
        if isinstance(value, re.Pattern):
            yield value
        elif isinstance(getattr(value, "__self__", None), re.Pattern):
            yield value.__self__
        elif isinstance(value, tuple | list | frozenset) and depth:
            yield from _patterns(list(value), depth - 1)
        elif isinstance(value, dict) and depth:
            yield from _patterns(list(value.values()), depth - 1)


def _examples(parsed: Any) -> list[str]:
    """Short texts that a parsed pattern matches, about; one for each of its alternatives."""
    texts = [""]
    for op, value in parsed:
        if op is constants.BRANCH:
            follow = [text for branch in value[1] for text in _examples(branch)]
        elif op is constants.SUBPATTERN:
            follow = _examples(value[-1])
        elif op is constants.ATOMIC_GROUP:
            follow = _examples(value)
        elif op in (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT):
            least, _, repeated = value
            follow = [text * max(1, min(least, 9)) for text in _examples(repeated)]
        else:
            follow = [_character(op, value)]
        # Not every combination, or there would be too many.
        texts = [
            texts[i % len(texts)] + follow[i % len(follow)]
            for i in range(max(len(texts), len(follow)))
        ]
    return texts[:40]


def _character(op: Any, value: Any) -> str:
    if op is constants.LITERAL:
        return chr(value)
    if op is constants.ANY or op is constants.NOT_LITERAL:
        return "x"
    if op is constants.IN:
        kind, first = value[0]
        if kind is constants.LITERAL:
            return chr(first)
        if kind is constants.RANGE:
            return chr(first[0])
        if kind is constants.CATEGORY:
            return {"DIGIT": "1", "SPACE": " "}.get(str(first).rpartition("_")[2], "a")
        return "x"
    return ""
