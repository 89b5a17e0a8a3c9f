"""Which lines of a text a question is about: by rare words, and by what its answer looks like.

An output is read by the line, and its telling lines are short and far apart: a chunk around each
costs many times what the line does. Nothing here is learned, and nothing depends on a model.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Characters. A longer line is looked at in parts.
_LONG = 3_000

# Characters of such a part.
_PART = 1_000

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

# Lines that tell of trouble; most questions are about it.
_TROUBLE = re.compile(
    r"error|exception|fail|fatal|panic|expected|assert|warning|undefined|cannot|not found|denied"
    r"|\bgot\b|^E  |\bleft:|\bright:|not ok|refused",
    re.IGNORECASE | re.MULTILINE,
)

# Words of a question that say nothing about what it is after.
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and at by did do does for from had has how in is it many of on that the to was were "
        "what which with",
    )
)

# Where the parts of a name meet: snake_case, camelCase.
_PARTS = re.compile(r"_|(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"\w+")

# The weights of a line's features; a word that it shares with the question weighs 1. Chosen on
# generated logs (seeds 4 to 6 of bench/replay.py) and on captured outputs.
_LOOKS_LIKE_ANSWER = 0.6  # it has the look of what the question asks for
_TROUBLE_ASKED_FOR = 0.6  # it tells of trouble, which the question is about
_TROUBLE_NOT_ASKED_FOR = 0.2  # it tells of trouble, and the question is about something else
_RARE_SHAPE = 0.5  # few lines have its shape, and it has another feature
_RARE_SHAPE_ALONE = 0.02  # few lines have its shape, and it has no other feature

# The share of its neighbours' best score that a line gets.
_FROM_NEIGHBOURS = 0.3

# Neighbours are at most this many lines away.
_NEIGHBOUR_LINES = 2

# Lines that a pattern looks through in one step, during which no other thread may run.
_LINES_AT_ONCE = 500

# A search for more words than this is slower than a look at every line.
_MOST_WORDS_SEARCHED = 40

# The characters of a line, from its beginning, whose marks are its shape.
_SHAPE_CHARACTERS = 80

# The number of best lines that are shown with those around them.
_BEST_WITH_CONTEXT = 3

# Lines shown before such a line.
_LINES_BEFORE = 1

# Lines shown after it.
_LINES_AFTER = 3

# Characters that a shown line takes in addition to its text, about: its number and the line feed.
_NUMBER_CHARACTERS = 8

# Characters of chosen lines after which poor ones are left out.
_ENOUGH_CHARACTERS = 600

# A line is poor if its score is below this share of the best one's.
_LEAST_SHARE = 0.2


class Line(NamedTuple):
    """A line of a text, or a part of a very long one.

    Attributes:
        number: The line's number, from 1.
        start: The index of its first character in the text.
        before: The number of characters of the same line that precede this part.
        text: The characters.
    """

    number: int
    start: int
    before: int
    text: str


def split_into_lines(text: str) -> list[Line]:
    """Every line of a text; very long ones in parts."""
    found: list[Line] = []
    start = 0
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) <= _LONG:
            found.append(Line(number, start, 0, line))
        else:
            parts = range(0, len(line), _PART)
            found += [Line(number, start + i, i, line[i : i + _PART]) for i in parts]
        start += len(line) + 1
    return found


def lines_near(text: str, spans: Iterable[tuple[int, int]]) -> list[Line]:
    """The lines, and the parts of very long ones, that start in one of some spans.

    Args:
        text: The text; what lies outside the spans costs next to nothing, however long it is.
        spans: First and last positions at which a line may start; they may overlap.
    """
    found: list[Line] = []
    number, counted = 1, 0  # the line that begins at `counted`
    next_start = 0  # where lines before this are done
    for first, last in sorted(spans):
        start = max(0, first, next_start)
        last = min(last, len(text))
        next_start = max(next_start, last + 1)
        while start <= last:
            line_start = text.rfind("\n", 0, start) + 1
            number += text.count("\n", counted, line_start)
            counted = line_start
            end = text.find("\n", start)
            end = end if end >= 0 else len(text)
            found += _parts_of_line(text, number, line_start, end, start, last)
            start = end + 1
    return found


def _parts_of_line(
    text: str, number: int, line_start: int, line_end: int, first: int, last: int
) -> Iterator[Line]:
    """A line, or its parts if it is very long, as far as they start from ``first`` to ``last``."""
    length = line_end - line_start
    size = max(1, length if length <= _LONG else _PART)
    skipped = -(-(first - line_start) // size) * size
    for start in range(line_start + skipped, min(last + 1, max(line_end, line_start + 1)), size):
        yield Line(number, start, start - line_start, text[start : min(start + size, line_end)])


class _Distinct:
    """Lines, of which equal ones are looked at once; their number counts.

    Attributes:
        texts: The lines, each once.
        numbers: For each line, the index of its text.
        counts: For each text, how many lines have it.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        indices: dict[str, int] = {}
        numbers = [indices.setdefault(line, len(indices)) for line in lines]
        self.texts = list(indices)
        self.numbers = np.array(numbers, dtype=np.intp)
        self.counts = np.bincount(self.numbers, minlength=len(indices))

    def count(self, found: Iterable[int]) -> int:
        """The number of lines that have one of these texts."""
        return int(self.counts[list(found)].sum())


def best_lines(
    lines: Sequence[str],
    question: str,
    characters: int,
    bonuses: Mapping[int, float] | None = None,
) -> list[int]:
    """The indices of the lines that fit a question best, best first.

    Those far below the best are left out once there are enough. Where nothing fits, lines of a
    rare shape come first.

    Args:
        lines: The lines of one text or of several, one after the other; none is empty.
        question: What is asked.
        characters: Characters that the lines may have together; a line that is too long is passed
            over, except the best.
        bonuses: By index, what is added to a line's score, as a share of the best line's score.
    """
    scores = _scores(lines, question)
    best = float(scores.max(initial=0.0))
    for index, share in (bonuses or {}).items():
        scores[index] += share * best
    chosen: dict[int, None] = {}
    room = characters
    for rank, index in enumerate(np.argsort(-scores, kind="stable").tolist()):
        if characters - room > _ENOUGH_CHARACTERS and scores[index] < _LEAST_SHARE * best:
            break
        if chosen and room < _NUMBER_CHARACTERS:
            break
        around = range(index - _LINES_BEFORE, index + _LINES_AFTER + 1)
        for one in (index, *(around if rank < _BEST_WITH_CONTEXT else ())):
            if 0 <= one < len(lines) and one not in chosen:
                size = len(lines[one]) + _NUMBER_CHARACTERS
                if size <= room or not chosen:
                    chosen[one] = None
                    room -= size
    return list(chosen)


def lines_sharing_words(lines: Sequence[str], text: str, rare: int | None = None) -> list[int]:
    """The indices of the lines that share words with a text, those with the rarest words first.

    Args:
        lines: The lines.
        text: The text.
        rare: Words that more lines than this have do not count; by default all count.
    """
    distinct = _Distinct(lines)
    by_word = _by_word(distinct.texts, text)
    features = [(found, 1.0) for found in by_word if rare is None or distinct.count(found) <= rare]
    scores = _weigh(distinct, features)[distinct.numbers]
    found = np.flatnonzero(scores)
    return found[np.argsort(-scores[found], kind="stable")].tolist()


def _scores(lines: Sequence[str], question: str) -> NDArray[np.float64]:
    """How well each line fits a question: its words, its looks, its shape, and its neighbours'."""
    distinct = _Distinct(lines)
    by_word = _by_word(distinct.texts, question)
    features = [(found, 1.0) for found in by_word]
    asking = {word.lower() for word in set(_WORD.findall(question))}
    for asked, looks in _LOOKS:
        if not asked.isdisjoint(asking):
            features.append((_matching(distinct.texts, looks), _LOOKS_LIKE_ANSWER))
    asked_for = _TROUBLE.search(question) or not any(by_word)
    trouble = _TROUBLE_ASKED_FOR if asked_for else _TROUBLE_NOT_ASKED_FOR
    features.append((_matching(distinct.texts, _TROUBLE), trouble))
    scores = _weigh(distinct, features)
    shapes = [_WORD.sub("w", line.strip()[:_SHAPE_CHARACTERS]) for line in distinct.texts]
    alike = dict.fromkeys(shapes, 0)
    for shape, count in zip(shapes, distinct.counts.tolist(), strict=True):
        alike[shape] += count
    for index, shape in enumerate(shapes):
        # Lines with nothing but a rare shape come after all that have another feature.
        weight = _RARE_SHAPE if scores[index] else _RARE_SHAPE_ALONE
        scores[index] += weight * log(1 + len(lines) / alike[shape])
    own = scores[distinct.numbers]
    around = np.zeros_like(own)
    for away in range(1, _NEIGHBOUR_LINES + 1):
        around[away:] = np.maximum(around[away:], own[:-away])
        around[:-away] = np.maximum(around[:-away], own[away:])
    return own + _FROM_NEIGHBOURS * around


def _weigh(distinct: _Distinct, features: Iterable[tuple[set[int], float]]) -> NDArray[np.float64]:
    """The scores of distinct lines: the fewer lines have a feature, the more it says.

    A feature is the indices of the distinct lines that have it, and a weight.
    """
    scores = np.zeros(len(distinct.texts))
    for found, weight in features:
        if found:
            indices = list(found)
            scores[indices] += weight * log(1 + len(distinct.numbers) / distinct.count(indices))
    return scores


def _by_word(lines: Sequence[str], question: str) -> list[set[int]]:
    """For each word of a question, the lines that have it; in the same order every time."""
    by_word: dict[str, set[int]] = {word: set() for word in sorted(_words(question) - _STOP)}
    candidates: Iterable[int] = range(len(lines))
    if by_word and len(by_word) <= _MOST_WORDS_SEARCHED:
        candidates = _holding(lines, by_word)
    for index in candidates if by_word else ():
        for word in by_word.keys() & _words(lines[index]):
            by_word[word].add(index)
    return list(by_word.values())


def _holding(lines: Sequence[str], words: Iterable[str]) -> set[int]:
    """The lines that hold one of some words in lower case, perhaps inside a longer word."""
    lowered = [_lower(line) for line in lines]
    text = "\n".join(lowered)
    starts = list(accumulate((len(line) + 1 for line in lowered), initial=0))
    found: set[int] = set()
    for word in map(_lower, words):
        place = text.find(word)
        while place >= 0:
            line = bisect_right(starts, place) - 1
            found.add(line)
            place = text.find(word, starts[line + 1])
    return found


def _lower(text: str) -> str:
    """A text in lower case; the sigma that ends a word alone is like the others."""
    return text.lower().replace("\u03c2", "\u03c3")


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


def _words(text: str) -> set[str]:
    """Words and the parts of names, in lower case, without a plural's s."""
    found = set()
    for word in set(_WORD.findall(text)):
        found.add(word.lower())
        found.update(_singular(part.lower()) for part in _PARTS.split(word) if part)
    return found


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
