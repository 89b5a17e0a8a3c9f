"""Words as PostgreSQL's full-text index has them: the same ones as FTS5's, made here.

PostgreSQL's own parsers are not asked, as they split names otherwise. A text becomes one row, or
several if it is too long for one: a ``tsvector`` takes 16,383 positions, 255 of one word, and a
megabyte. Rows of the same text share some words at their border, so that words in a row are found
across it. Beside the vector a row has *frequencies*: how often it has each word, as hashes, which
BM25 is computed from (`bm25`); reading them from the vector takes PostgreSQL much longer.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from clara_mlx.store.terms import Alternatives, Group, Term

# A word's frequencies: a hash of it, and how often it is among the words and among the parts.
_FREQUENCY = Struct("<IBB")

#: Positions of one row, fewer than a tsvector takes.
MOST_POSITIONS = 16_000

# Positions of one word in a row: the most that a tsvector keeps.
_MOST_OF_ONE = 255

# Bytes of a row's different words; a tsvector takes a megabyte with their positions.
_MOST_BYTES = 1 << 18

# Words that a row shares with the one before: as many as a phrase has, less one.
_SHARED = 31

# Bytes of a word; a longer one is cut off and ends with a hash. A tsvector takes 2,046, but an
# index of it fewer.
_LONGEST = 500

# Hexadecimal digits of that hash.
_HASH_DIGITS = 32

# Words whose lexemes are kept at hand.
_KEPT_WORDS = 1 << 16

# Where `words` splits ASCII text; other text comes in words already, with spaces between them.
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Piece:
    """One row of a text.

    Attributes:
        length: Number of words and parts that it has and no row before.
        frequencies: How often it has each word, as `bm25` reads it.
        vector: All its words, as the text form of a ``tsvector``.
    """

    length: int
    frequencies: bytes
    vector: str


def pieces(text: str, parts: str) -> Iterator[Piece]:
    """The rows of a text, at least one, from the two columns that `words.columns` makes of it."""
    in_text, in_parts = _words(text), _words(parts)
    if _fits(in_text + in_parts):
        yield _piece(in_text, in_parts)
        return
    for start, shared, end in _cuts(in_text):
        yield _piece(in_text[start:end], [], shared)
    for start, shared, end in _cuts(in_parts) if in_parts else ():
        yield _piece([], in_parts[start:end], shared)


def hash_of(word: str) -> int:
    """The hash of a word, 32 bits."""
    return zlib.crc32(word.encode())


def query(alternatives: Alternatives) -> str:
    """What matches any of several alternatives, as the text form of a ``tsquery``."""
    return " | ".join(
        "(" + " & ".join(f"({group_query(group)})" for group in groups) + ")"
        for groups in alternatives
    )


def group_query(group: Group) -> str:
    """What matches any term of a group, as the text form of a ``tsquery``."""
    return " | ".join(f"({_term_query(term)})" for term in group)


def _term_query(term: Term) -> str:
    if term.is_beginning:
        return f"'{_beginning(term.words[-1])}':*"
    return " <-> ".join(map(_lexeme, term.words))


@lru_cache(maxsize=_KEPT_WORDS)
def _lexeme(word: str) -> str:
    """A word in quotes, as PostgreSQL reads it in vectors and queries."""
    beginning = _beginning(word)
    if beginning != word:
        beginning += f"-{hashlib.sha256(word.encode()).hexdigest()[:_HASH_DIGITS]}"
    return f"'{beginning}'"


def _beginning(word: str) -> str:
    return word.encode()[:_LONGEST].decode(errors="ignore")


def _words(column: str) -> list[str]:
    """The words of one of the columns that `words.columns` makes."""
    return _WORD.findall(column.lower()) if column.isascii() else column.split()


def _fits(words: Sequence[str]) -> bool:
    """Whether words fit into one row."""
    if len(words) <= _MOST_OF_ONE and sum(map(len, words)) * 4 <= _MOST_BYTES:
        return True
    return next(_cuts(words))[2] == len(words)


def _cuts(words: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Where the rows of many words begin and end, and how many words each shares with the last."""
    start = shared = 0
    while True:
        seen: Counter[str] = Counter()
        size = 0
        end = start
        for word in words[start : start + MOST_POSITIONS]:
            size += 0 if word in seen else 4 * len(word)
            if end > start + shared and (seen[word] == _MOST_OF_ONE or size > _MOST_BYTES):
                break
            seen[word] += 1
            end += 1
        yield start, shared, end
        if end == len(words):
            return
        shared = min(_SHARED, end - start - shared - 1)
        start = end - shared


def _piece(words: Sequence[str], parts: Sequence[str], shared: int = 0) -> Piece:
    """A row of words and parts, the first ``shared`` of which another row has counted."""
    places: dict[str, list[str]] = {}
    # A position between the words and the parts stays empty, so that no phrase spans both.
    for place, word in enumerate([*words, "", *parts], 1):
        if word:
            places.setdefault(word, []).append(str(place))
    in_words, in_parts = Counter(words[shared:]), Counter(parts[shared:] if not words else parts)
    frequencies = [
        _FREQUENCY.pack(hash_of(word), min(255, in_words[word]), min(255, in_parts[word]))
        for word in places
        if in_words[word] or in_parts[word]
    ]
    return Piece(
        in_words.total() + in_parts.total(),
        b"".join(frequencies),
        " ".join(f"{_lexeme(word)}:{','.join(at)}" for word, at in places.items()),
    )
