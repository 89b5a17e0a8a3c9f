"""Which lines a question is about: by rare words, and by what its answer looks like.

An output is read by the line, and its telling lines are short and far apart: a chunk around each
costs many times what the line does. Nothing here is learned, and nothing depends on a model.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Container, Iterable, Sequence
from itertools import accumulate
from math import log

import numpy as np
from numpy.typing import NDArray

from clara_mlx.compressors import looks
from clara_mlx.compressors.question import Term, terms
from clara_mlx.store import words
from clara_mlx.store.forms import stem

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

# The number of best lines that are shown with those around them.
_BEST_WITH_CONTEXT = 3

# Lines shown before such a line.
_LINES_BEFORE = 1

# Lines shown after it.
_LINES_AFTER = 3

# Characters that a shown line takes in addition to its text, about: its number and the line feed.
_NUMBER_CHARACTERS = 8

# Letters of the longest ending of a word.
_LONGEST_ENDING = 8

# Terms that lines are looked through for, one after the other.
_MOST_TERMS = 120

# Characters of a question above which it may have more of them: a note's is a whole message.
_LONG_QUESTION = 1_000

# Characters of chosen lines after which poor ones are left out.
_ENOUGH_CHARACTERS = 600

# A line is poor if its score is below this share of the best one's.
_LEAST_SHARE = 0.2


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

    def weigh(self, scores: NDArray[np.float64], found: Iterable[int], weight: float) -> None:
        """Add to the scores of some texts: the fewer lines have one of them, the more."""
        if indices := list(found):
            having = int(self.counts[indices].sum())
            scores[indices] += weight * log(1 + len(self.numbers) / having)

    def rareness(self) -> NDArray[np.float64]:
        """For each text, how few lines have its shape."""
        numbers: dict[str, int] = {}
        shapes = [numbers.setdefault(one, len(numbers)) for one in looks.shapes(self.texts)]
        alike = np.bincount(shapes, self.counts, len(numbers))
        return np.log(1 + len(self.numbers) / alike)[shapes]


def best_lines(
    lines: Sequence[str],
    question: str,
    characters: int,
    bonuses: NDArray[np.float64] | None = None,
    shown: Container[str] = (),
) -> list[int]:
    """The indices of the lines that fit a question best, best first, and none of them twice.

    Those far below the best are left out once there are enough. Where nothing fits, lines of a
    rare shape come first.

    Args:
        lines: The lines of one text or of several, one after the other; none is empty.
        question: What is asked.
        characters: Characters that the lines may have together; a line that is too long is passed
            over, except the best.
        bonuses: What is added to each line's score, as a share of the best line's score.
        shown: Lines that are left out; they count for those around them all the same.
    """
    scores = _scores(lines, question)
    if bonuses is not None:
        scores += scores.max(initial=0.0) * bonuses
    order = _once(lines, np.argsort(-scores, kind="stable"))
    chosen: dict[int, None] = {}
    told: set[str] = set()
    room = characters
    for rank, index in enumerate(order):
        poor = scores[index] < _LEAST_SHARE * scores[order[0]]
        if poor and characters - room > _ENOUGH_CHARACTERS:
            break
        if chosen and room < _NUMBER_CHARACTERS:
            break
        around = range(index - _LINES_BEFORE, index + _LINES_AFTER + 1)
        for one in (index, *(around if rank < _BEST_WITH_CONTEXT else ())):
            if not 0 <= one < len(lines) or one in chosen:
                continue
            size = len(lines[one]) + _NUMBER_CHARACTERS
            text = lines[one].strip()
            if (size <= room or not chosen) and text not in told and text not in shown:
                chosen[one] = None
                told.add(text)
                room -= size
    return list(chosen)


def _once(lines: Sequence[str], order: NDArray[np.intp]) -> list[int]:
    """Indices in their order, but of equal lines only the first."""
    first: dict[str, int] = {}
    for index in order.tolist():
        first.setdefault(lines[index], index)
    return list(first.values())


def lines_sharing_words(lines: Sequence[str], text: str, rare: int | None = None) -> list[int]:
    """The indices of the lines that share words with a text, those with the rarest words first.

    Args:
        lines: The lines.
        text: The text.
        rare: Words that more lines than this have do not count; by default all count.
    """
    distinct = _Distinct(lines)
    asked = _some_terms(distinct.texts, text)
    scores = np.zeros(len(distinct.texts))
    for term, found in zip(asked, _holding(distinct.texts, asked), strict=True):
        if rare is None or distinct.counts[found].sum() <= rare:
            distinct.weigh(scores, found, term.weight)
    each = scores[distinct.numbers]
    some = np.flatnonzero(each)
    return some[np.argsort(-each[some], kind="stable")].tolist()


def _scores(lines: Sequence[str], question: str) -> NDArray[np.float64]:
    """How well each line fits a question: its words, its looks, its shape, and its neighbours'."""
    distinct = _Distinct(lines)
    asked = _some_terms(distinct.texts, question)
    held = _holding(distinct.texts, asked)
    scores = np.zeros(len(distinct.texts))
    for term, found in zip(asked, held, strict=True):
        distinct.weigh(scores, found, term.weight)
    for looking_right in looks.lines_that_look_right(distinct.texts, question):
        distinct.weigh(scores, looking_right, _LOOKS_LIKE_ANSWER)
    asked_for = looks.asks_for_trouble(question) or not any(held)
    trouble = _TROUBLE_ASKED_FOR if asked_for else _TROUBLE_NOT_ASKED_FOR
    distinct.weigh(scores, looks.lines_of_trouble(distinct.texts), trouble)
    # Lines with nothing but a rare shape come after all that have another feature.
    scores += np.where(scores > 0, _RARE_SHAPE, _RARE_SHAPE_ALONE) * distinct.rareness()
    own = scores[distinct.numbers]
    around = np.zeros_like(own)
    for away in range(1, _NEIGHBOUR_LINES + 1):
        around[away:] = np.maximum(around[away:], own[:-away])
        around[:-away] = np.maximum(around[:-away], own[away:])
    return own + _FROM_NEIGHBOURS * around


def _some_terms(lines: Sequence[str], question: str) -> list[Term]:
    """The terms of a question; of a very long one, of its words that lines have as they are."""
    if len(question) > _LONG_QUESTION:
        there = set(_WORD.findall(words.fold("\n".join(lines))))
        asked = dict.fromkeys(_WORD.findall(words.fold(question)))
        question = " ".join(word for word in asked if word in there)
    return terms(question)[:_MOST_TERMS]


def _holding(lines: Sequence[str], asked: Sequence[Term]) -> list[list[int]]:
    """For each term, the indices of the lines that have it."""
    spelled, folded = _fold(lines)
    starts = list(accumulate((len(line) + 1 for line in folded.split("\n")), initial=0))
    found: list[list[int]] = []
    for term in asked:
        having: list[int] = []
        place = folded.find(term.text)
        while place >= 0:
            after = place + 1
            if term.anywhere or _is_form(spelled, folded, place, term.text):
                having.append(bisect_right(starts, place) - 1)
                after = starts[having[-1] + 1]
            place = folded.find(term.text, after)
        found.append(having)
    return found


def _fold(lines: Sequence[str]) -> tuple[str, str]:
    """Lines as one text, as `words.spell` and as `words.fold` write it, of the same length."""
    text = "\n".join(lines)
    if text.isascii():
        return text, text.lower()
    spelled: list[str] = []
    folded: list[str] = []
    for line in lines:
        plain = " ".join(words.spell(line).split("\n"))
        small = plain.casefold()
        spelled.append(plain if len(plain) == len(small) else small)
        folded.append(small)
    return "\n".join(spelled), "\n".join(folded)


def _is_form(spelled: str, folded: str, start: int, root: str) -> bool:
    """Whether a word, or a part of a name, begins at a place and is a form of one with a stem."""
    if not _begins_part(spelled, start):
        return False
    end = start + len(root)
    for place in range(end, min(end + _LONGEST_ENDING, len(folded)) + 1):
        if place == len(folded) or not folded[place].isalnum() or _begins_part(spelled, place):
            return place == end or stem(folded[start:place]) == root
    return False


def _begins_part(text: str, place: int) -> bool:
    """Whether a word, or a part of a name, begins at a place."""
    before, first, second = text[place - 1 : place], text[place], text[place + 1 : place + 2]
    if not before.isalnum():
        return True
    return first.isupper() and (not before.isupper() or second.islower())
