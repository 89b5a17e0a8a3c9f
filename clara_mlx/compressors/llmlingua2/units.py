"""What is kept or dropped as a whole: words, joined where an identifier or a name must not be cut.

A plain LLMLingua-2 drops single pieces of ``src/app/main.py:12``, and what is left names nothing.
Here a path, a test, a hash or a name of code is one unit, all of it or nothing; identifiers go
before ordinary words, and the ends of lines stay where lines are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from clara_mlx.compressors.llmlingua2.words import Word
from clara_mlx.tool_outputs.identifiers import occurrences
from clara_mlx.tool_outputs.pieces import find_all

# parse_header, shop.prices, std::vector, test-data, 3.14; in ASCII, because a Chinese sentence is
# one run of letters
_NAME = re.compile(r"\w++(?:[.:-]{1,2}+\w++)*+", re.ASCII)


class Rank(IntEnum):
    """What is kept first."""

    WORD = 0
    IDENTIFIER = 1
    FORCED = 2


@dataclass(frozen=True, slots=True)
class Unit:
    """``text[start:end]``, which is kept or dropped as a whole."""

    start: int
    end: int
    rank: Rank
    probability: float  # the mean of its words'

    @property
    def key(self) -> tuple[int, float]:
        """What units are ordered by; the greatest is kept first."""
        return self.rank, self.probability


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    rank: Rank


def units(
    text: str,
    words: Sequence[Word],
    *,
    force_tokens: Sequence[str] = (),
    keep_digits: bool = False,
    protect: bool = True,
) -> list[Unit]:
    """The units of a text, in their order; none overlap.

    Args:
        text: The text that the words are from.
        words: Its words, in their order.
        force_tokens: Strings that are kept wherever they stand, with the word around them.
        keep_digits: Whether words with a digit are kept.
        protect: Whether identifiers and names are units, and identifiers go before words.
    """
    spans = list(_forced(text, force_tokens))
    if protect:
        spans += [_Span(one.start, one.end, Rank.IDENTIFIER) for one in occurrences(text)]
        spans += [_Span(*match.span(), Rank.WORD) for match in find_all(_NAME, text)]
    spans.sort(key=lambda span: span.start)
    found = _merge(words, spans)
    if not keep_digits:
        return found
    return [
        Unit(unit.start, unit.end, Rank.FORCED, unit.probability)
        if any(map(str.isdecimal, text[unit.start : unit.end]))
        else unit
        for unit in found
    ]


def _forced(text: str, force_tokens: Iterable[str]) -> Iterator[_Span]:
    """Every place of the strings that are kept."""
    for token in filter(None, force_tokens):
        start = text.find(token)
        while start >= 0:
            yield _Span(start, start + len(token), Rank.FORCED)
            start = text.find(token, start + len(token))


def _merge(words: Sequence[Word], spans: Sequence[_Span]) -> list[Unit]:
    """Words and spans as units: what overlaps becomes one, of the highest rank among it."""
    pieces: list[tuple[int, int, Rank, float | None]] = [
        (word.start, word.end, Rank.WORD, word.probability) for word in words
    ]
    pieces += [(span.start, span.end, span.rank, None) for span in spans]
    pieces.sort(key=lambda piece: piece[0])
    merged: list[Unit] = []
    start = end = 0
    rank = Rank.WORD
    found: list[float] = []
    for first, last, its_rank, probability in pieces:
        if first >= end and end > start:
            merged.append(Unit(start, end, rank, _mean(found)))
            found = []
        if first >= end:
            start, rank = first, its_rank
        end = max(end, last)
        rank = max(rank, its_rank)
        if probability is not None:
            found.append(probability)
    if end > start:
        merged.append(Unit(start, end, rank, _mean(found)))
    return merged


def _mean(probabilities: Sequence[float]) -> float:
    """The mean; 0 of white space, which no word covers."""
    return sum(probabilities) / len(probabilities) if probabilities else 0.0


def runs(units: Sequence[Unit], kept: Sequence[int]) -> list[tuple[int, int]]:
    """The parts of a text that some units make up: neighbours are one, with what is between them.

    Args:
        units: All units of the text, in their order.
        kept: The numbers of those that are kept, in their order.
    """
    found: list[tuple[int, int]] = []
    before = -2
    for number in kept:
        unit = units[number]
        start = found.pop()[0] if number == before + 1 else unit.start
        found.append((start, unit.end))
        before = number
    return found


def render(text: str, parts: Sequence[tuple[int, int]], *, lines: bool) -> str:
    """The parts of a text as one text, with something between them that no two words become one.

    Args:
        text: The text that the parts are from.
        parts: Where they start and end.
        lines: Whether the ends of lines are kept; otherwise all white space is a space.
    """
    pieces: list[str] = []
    last = 0
    for start, end in parts:
        piece = text[start:end]
        if not lines:
            piece = " ".join(piece.split())
        # A line feed that was forced to stay needs nothing around it.
        if pieces and not (pieces[-1][-1:].isspace() or piece[:1].isspace()):
            pieces.append("\n" if lines and "\n" in text[last:start] else " ")
        pieces.append(piece)
        last = end
    return "".join(pieces)
