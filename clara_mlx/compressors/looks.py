"""How a line looks that answers a question: by words that ask for it, by trouble, by its shape."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

# How an answer looks, by words of a question that asks for it.
_LOOKS = tuple(
    (frozenset(asked.split()), re.compile(looks, re.MULTILINE))
    for asked, looks in (
        ("file path where module", r"[\w-]\.[A-Za-z]{1,5}\b"),
        ("line column where", r":\d+|\bline \d+"),
        ("exception error", r"[a-z](?:Error|Exception)\b|panicked"),
        ("long duration took time seconds", r"\d ?m?s\b|\d (?:ms|sec)"),
        ("when date day", r"\b\d{4}-\d\d|\d\d:\d\d"),
        ("who author", r"\w@\w|Author"),
        ("commit hash id", r"\b[0-9a-f]{7,40}\b"),
        ("version versions", r"\d\.\d"),
        (
            "exit status code",
            r"exit (?:code|status)|returned|HTTP/|\b[A-Z]{1,4}\d{2,4}\b|\[[\w-]+\]|: \(\d+\)"
            r"|Error \d+",
        ),
        ("many number count total", r"\b\d+ [a-z]"),
        ("host url address", r"https?://|\w\.(?:com|org|io|net)\b"),
        (
            "test tests package packages function target command step",
            r"\btest|FAIL|^ok|---|\bfn\b|\bdef\b|\bin \w|\bnpm\b|make",
        ),
        ("branch tag", r"branch|tag|->|##"),
        ("added inserted new", r"^ *\+"),
        ("removed deleted old", r"^ *-"),
    )
)

# What lines have that tell of trouble, in small letters; most questions are about it.
_TROUBLE = (
    *("error", "exception", "fail", "fatal", "panic", "expected", "assert", "warning"),
    *("undefined", "cannot", "not found", "denied", "not ok", "refused"),
    *(" got ", "\ngot ", "\ne  ", "left:", "right:"),
)

_WORD = re.compile(r"\w+")

# Lines that a pattern looks through in one step, during which no other thread may run.
_LINES_AT_ONCE = 500

# The characters of a line, from its beginning, whose marks are its shape.
_SHAPE_CHARACTERS = 80


def lines_that_look_right(lines: Sequence[str], question: str) -> Iterator[set[int]]:
    """For each look that a question asks for, the indices of the lines that have it."""
    asking = {word.lower() for word in set(_WORD.findall(question))}
    for asked, looks in _LOOKS:
        if not asked.isdisjoint(asking):
            yield _matching(lines, looks)


def lines_of_trouble(lines: Sequence[str]) -> set[int]:
    """The indices of the lines that tell of trouble."""
    text = "\n".join(["", *(line.lower() for line in lines)])
    starts = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))
    found: set[int] = set()
    for trouble in _TROUBLE:
        place = text.find(trouble)
        while place >= 0:
            number = bisect_right(starts, place + len(trouble) - 1) - 1
            found.add(number - 1)
            place = text.find(trouble, starts[number + 1] - 1)
    return found


def asks_for_trouble(question: str) -> bool:
    """Whether a question is about trouble."""
    text = f"\n{question.lower()} "
    return any(trouble in text for trouble in _TROUBLE)


def shapes(lines: Sequence[str]) -> list[str]:
    """The shape of each line: its marks, with one letter for each word."""
    return [_WORD.sub("w", line.strip()[:_SHAPE_CHARACTERS]) for line in lines]


def _matching(lines: Sequence[str], pattern: re.Pattern[str]) -> set[int]:
    """The lines in which a pattern matches, found in one pass over some hundreds at a time."""
    found: set[int] = set()
    for first in range(0, len(lines), _LINES_AT_ONCE):
        some = lines[first : first + _LINES_AT_ONCE]
        starts = list(accumulate((len(line) + 1 for line in some), initial=0))
        text = "\n".join(some)
        match = pattern.search(text)
        while match:
            number = bisect_right(starts, match.start())
            found.add(first + number - 1)
            match = pattern.search(text, starts[number]) if number < len(some) else None
    return found
