"""Which lines of a text a question is about: by rare words, and by what its answer looks like.

An output is read by the line, and its telling lines are short and far apart: a chunk around each
costs many times what the line does. Nothing here is learned, and nothing depends on a model.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import log
from typing import NamedTuple

# Longer lines are looked at in parts of so many characters.
_LONG, _PART = 3_000, 1_000

# What an answer looks like, by what the question asks for.
_LOOKS = tuple(
    (re.compile(rf"\b(?:{asked})\b", re.IGNORECASE), re.compile(looks, re.MULTILINE))
    for asked, looks in (
        ("file|path|where|module", r"[\w-]\.[A-Za-z]{1,5}\b"),
        ("line|column|where", r":\d+|\bline \d+"),
        ("exception|error", r"[a-z](?:Error|Exception)\b|panicked"),
        ("long|duration|took|time|seconds", r"\d ?m?s\b|\d (?:ms|sec)"),
        ("when|date|day", r"\b\d{4}-\d\d|\d\d:\d\d"),
        ("who|author", r"\w@\w|Author"),
        ("commit|hash|id", r"\b[0-9a-f]{7,40}\b"),
        ("versions?", r"\d+\.\d+"),
        (
            "exit|status|code",
            r"exit (?:code|status)|returned|HTTP/|\b[A-Z]{1,4}\d{2,4}\b|\[[\w-]+\]|: \(\d+\)"
            r"|Error \d+",
        ),
        ("many|number|count|total", r"\b\d+ [a-z]"),
        ("host|url|address", r"https?://|\w\.(?:com|org|io|net)\b"),
        (
            "tests?|packages?|function|target|command|step",
            r"\btest|FAIL|^ok|---|\bfn\b|\bdef\b|\bin \w+|\bnpm\b|make",
        ),
        ("branch|tag", r"branch|tag|->|##"),
        ("added|inserted|new", r"^ *\+"),
        ("removed|deleted|old", r"^ *-"),
    )
)

# Lines that tell of trouble, which is what is mostly asked for.
_TROUBLE = re.compile(
    r"error|exception|fail|fatal|panic|expected|assert|warning|undefined|cannot|not found|denied"
    r"|\bgot\b|^E  |\bleft:|\bright:|not ok|refused",
    re.IGNORECASE | re.MULTILINE,
)

_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and at by did do does for from had has how in is it many of on that the to was were "
        "what which with",
    )
)

_PARTS = re.compile(r"_|(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"\w+")

# What a line's features weigh beside the rarity of the words it shares with the question: looking
# like an answer, telling of trouble (asked for, or not), and a shape that few other lines have.
# Chosen on generated logs (seeds 4 to 6 of bench/replay.py) and on captured outputs.
_LOOK, _ASKED, _UNASKED, _SHAPE, _ODD = 0.6, 0.6, 0.2, 0.5, 0.02

# Of more words than that a pattern is slower than a look at every line.
_FEW = 40

# What a line gets of the best one near it, and how near that is.
_LENT, _NEAR = 0.3, 2

# A shape is what is left of so many characters without words and figures.
_SHAPE_CHARACTERS = 80

# The best lines come with those around them.
_BEST, _BEFORE, _AFTER = 3, 1, 3

# About the characters of a line's number and its end, where it is shown.
_NUMBER = 8

# Lines below this share of the best one's score are left out once there are so many characters.
_LEAST_SHARE, _ENOUGH = 0.2, 600


class Line(NamedTuple):
    """A line of a text, or a part of a very long one.

    ``number`` counts from 1, ``start`` is its place in the text, ``before`` how many characters of
    the same line precede it.
    """

    number: int
    start: int
    before: int
    text: str


def split(text: str) -> list[Line]:
    """Every line of a text; very long ones in parts."""
    found: list[Line] = []
    start = 0
    for number, line in enumerate(text.split("\n"), 1):
        size = len(line) if len(line) <= _LONG else _PART
        for before in range(0, max(1, len(line)), max(1, size)):
            found.append(Line(number, start + before, before, line[before : before + size]))
        start += len(line) + 1
    return found


def about(
    lines: Sequence[str],
    question: str,
    characters: int,
    besides: Mapping[int, float] | None = None,
) -> list[int]:
    """The indices of the lines that fit a question best, best first.

    Those far below the best are left out once there are enough. Where nothing fits, lines of an
    odd shape come first.

    Args:
        lines: of one text or of several, one after the other; none is empty.
        question: what is asked.
        characters: that the lines may have together; longer ones are passed over, except the best.
        besides: by index, what else speaks for a line, as a share of the best line's score.
    """
    scores = _scores(lines, question)
    best = max(scores, default=0.0)
    for index, share in (besides or {}).items():
        scores[index] += share * best
    chosen: dict[int, None] = {}
    room = characters
    for rank, index in enumerate(sorted(range(len(lines)), key=lambda i: (-scores[i], i))):
        if characters - room > _ENOUGH and scores[index] < _LEAST_SHARE * best:
            break
        near = range(index - _BEFORE, index + _AFTER + 1) if rank < _BEST else ()
        for one in (index, *near):
            if 0 <= one < len(lines) and one not in chosen:
                size = len(lines[one]) + _NUMBER
                if size <= room or not chosen:
                    chosen[one] = None
                    room -= size
    return list(chosen)


def sharing(lines: Sequence[str], text: str, rare: int | None = None) -> list[int]:
    """The indices of the lines that share words with a text, those with the rarest words first.

    With ``rare``, words that more lines have do not count.
    """
    having = [found for found in _having(lines, text) if rare is None or len(found) <= rare]
    scores = _weighed(len(lines), [(found, 1.0) for found in having])
    found = [index for index, score in enumerate(scores) if score]
    return sorted(found, key=lambda index: -scores[index])


def _scores(lines: Sequence[str], question: str) -> list[float]:
    having = _having(lines, question)
    trouble = _TROUBLE.search(question) or not any(having)
    features = [(found, 1.0) for found in having]
    features += [
        (_matched(lines, looks), _LOOK) for asked, looks in _LOOKS if asked.search(question)
    ]
    features.append((_matched(lines, _TROUBLE), _ASKED if trouble else _UNASKED))
    scores = _weighed(len(lines), features)
    shapes = [_WORD.sub("w", line.strip()[:_SHAPE_CHARACTERS]) for line in lines]
    alike = Counter(shapes)
    for index, score in enumerate(scores):
        # Of lines with nothing else the odd ones come first, after all that have something.
        scores[index] += (_SHAPE if score else _ODD) * log(1 + len(lines) / alike[shapes[index]])
    return [
        score + _LENT * max(scores[max(0, i - _NEAR) : i] + scores[i + 1 : i + 1 + _NEAR] + [0.0])
        for i, score in enumerate(scores)
    ]


def _weighed(count: int, features: Iterable[tuple[set[int], float]]) -> list[float]:
    """Scores of so many lines: the fewer have a feature, the more it says."""
    scores = [0.0] * count
    for found, weight in features:
        for index in found:
            scores[index] += weight * log(1 + count / len(found))
    return scores


def _having(lines: Sequence[str], question: str) -> list[set[int]]:
    """For each word of a question, the lines that have it; in the same order every time."""
    having: dict[str, set[int]] = {word: set() for word in sorted(_words(question) - _STOP)}
    candidates: Iterable[int] = range(len(lines))
    if having and len(having) <= _FEW:
        any_word = re.compile("|".join(map(re.escape, having)), re.IGNORECASE)
        candidates = _matched(lines, any_word)
    for index in candidates if having else ():
        for word in having.keys() & _words(lines[index]):
            having[word].add(index)
    return list(having.values())


def _matched(lines: Sequence[str], pattern: re.Pattern[str]) -> set[int]:
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    found = pattern.finditer("\n".join(lines))
    return {bisect_right(starts, match.start()) - 1 for match in found}


def _words(text: str) -> set[str]:
    """Words and the parts of names, in small letters, without a plural's s."""
    found = set()
    for word in _WORD.findall(text):
        found.add(word.lower())
        found.update(_singular(part.lower()) for part in _PARTS.split(word) if part)
    return found


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
