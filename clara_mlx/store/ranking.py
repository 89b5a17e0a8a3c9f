"""How well a chunk fits a query, from its own text and what stands around it: from 0 to 1.

BM25 only knows how often a chunk has a word. What says more, and is weighed here: how much of the
query's words, by rarity, the chunk has at all; whether one line has them; whether words that follow
one another in the query do so in the chunk; whether those it lacks stand just before or after it;
and whether the command that printed it has them.

The weights were chosen on questions about outputs of real tools (bench/real.py), among values of
which many gave the same result.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import exp, log

from clara_mlx.store import forms, words
from clara_mlx.store.asked import Asked

# A word in another form, and a word that is a part of a compound name, beside the word itself.
_FORM = 0.6
_PART = 0.5

# BM25: how soon the same word again adds nothing, and how much a long chunk loses.
_SATURATION = 1.2
_LENGTH = 0.4

# The length of a usual chunk in words and parts; what BM25 calls the average, but the same in every
# file, so that scores of two files can be compared.
_USUAL_WORDS = 140

# What the words in or around a chunk add, each once; what those of its best line do; what pairs of
# words do that follow one another; and what the words of its command do.
_AROUND = 0.3
_LINE = 0.5
_PAIR = 0.7
_COMMAND = 0.5

# The share of the score by BM25 that depends on how much of the query was found.
_COVERAGE = 0.5

# Scores up to this one are in proportion to what was found; those above approach 1.
_LINEAR = 0.9


def rarity(count: float, among: float) -> float:
    """How much a word says that ``count`` of ``among`` chunks have; always positive.

    One that no chunk has says as much as one that a single chunk has.
    """
    count = max(1.0, count)
    return log(1 + (max(0.0, among - count) + 0.5) / (count + 0.5))


@dataclass(frozen=True)
class Fit:
    """How well a chunk fits a query.

    Attributes:
        score: From 0 to 1; about the share of the query that was found, by the words' rarity.
        line: The index of the line that fits best, among the lines of the chunk.
    """

    score: float
    line: int


class Ranker:
    """Compares chunks with one query.

    Args:
        asked: The query.
        rarities: For each word of it, its rarity among all chunks.
        in_commands: The same among the commands of all memories; 0 for words that none has.
    """

    def __init__(
        self, asked: Asked, rarities: Sequence[float], in_commands: Sequence[float]
    ) -> None:
        self._words = asked.words
        self._weights = [
            word.weight * rarity for word, rarity in zip(asked.words, rarities, strict=True)
        ]
        self._in_commands = [
            word.weight * rarity for word, rarity in zip(asked.words, in_commands, strict=True)
        ]
        self._pairs = {
            pair: (self._weights[pair[0]] + self._weights[pair[1]]) / 2 for pair in asked.pairs
        }
        self._exact = {word.text: index for index, word in enumerate(asked.words)}
        self._stems: dict[str, list[int]] = {}
        for index, word in enumerate(asked.words):
            if asked.has_forms(index):
                self._stems.setdefault(forms.stem(word.text), []).append(index)
        self._beginnings = asked.beginnings()
        self._kept: dict[tuple[str, tuple[str, ...]], tuple[tuple[int, float], ...]] = {}
        self._ideal = (1 + _AROUND + _LINE) * sum(self._weights) + _PAIR * sum(self._pairs.values())

    def fit(self, chunk: str, around: str = "", command: Collection[str] = frozenset()) -> Fit:
        """How well a chunk fits.

        Args:
            chunk: Its text, as a reader sees it.
            around: What stands just before and after it.
            command: The words of the command that printed it, and of whatever else is known of it.
        """
        weights = self._weights
        counts = [0.0] * len(weights)
        pairs: set[tuple[int, int]] = set()
        best, best_line = 0.0, 0
        length = 0
        previous: tuple[tuple[int, float], ...] = ()
        for number, line in enumerate(chunk.split("\n")):
            here: dict[int, float] = {}
            for one in words.words_with_parts(line):
                length += 1 + len(one[1])
                found = self._found(one)
                if not found:
                    previous = found
                    continue
                for index, share in found:
                    counts[index] += share
                    here[index] = max(here.get(index, 0.0), share)
                    for before, _ in previous:
                        if (before, index) in self._pairs:
                            pairs.add((before, index))
                previous = found
            in_line = sum(weights[index] * share for index, share in here.items())
            if in_line > best:
                best, best_line = in_line, number
        near = {index for index, count in enumerate(counts) if count}
        covered = sum(weights[index] for index in near)
        if len(near) < len(counts) and around:
            for one in words.words_with_parts(around):
                if found := self._found(one):
                    near.update(index for index, _ in found)
        usual = _SATURATION * (1 - _LENGTH + _LENGTH * length / _USUAL_WORDS)
        raw = sum(
            weight * count * (_SATURATION + 1) / (count + usual)
            for weight, count in zip(weights, counts, strict=True)
        )
        raw += _AROUND * sum(weights[index] for index in near) if covered else 0.0
        raw *= 1 - _COVERAGE + _COVERAGE * covered / (sum(weights) or 1.0)
        raw += _LINE * best + _PAIR * sum(self._pairs[pair] for pair in pairs)
        raw += _COMMAND * sum(
            share
            for share, word in zip(self._in_commands, self._words, strict=True)
            if share and _is_among(word.text, command)
        )
        return Fit(_to_one(raw / self._ideal) if self._ideal else 0.0, best_line)

    def _found(self, one: tuple[str, tuple[str, ...]]) -> tuple[tuple[int, float], ...]:
        """The words of the query that a word of a text is, each with the share that counts."""
        if (kept := self._kept.get(one)) is None:
            shares: dict[int, float] = {}
            word, parts = one
            for text, share in ((word, 1.0), *((part, _PART) for part in parts)):
                if (index := self._exact.get(text)) is not None:
                    shares[index] = max(share, shares.get(index, 0.0))
                for index in self._stems.get(forms.stem(text), ()):
                    shares[index] = max(share * _FORM, shares.get(index, 0.0))
                for index, beginning in self._beginnings:
                    if text.startswith(beginning):
                        shares[index] = max(share, shares.get(index, 0.0))
            self._kept[one] = kept = tuple(shares.items())
        return kept


def _is_among(word: str, command: Collection[str]) -> bool:
    return word in command or forms.stem(word) in command


def _to_one(share: float) -> float:
    """A score below 1 in the same order."""
    if share <= _LINEAR:
        return share
    return 1 - (1 - _LINEAR) * exp((_LINEAR - share) / (1 - _LINEAR))
