"""Words of the full-text index: identifiers, whole and in parts, and queries that can't fail."""

from __future__ import annotations

import re
from functools import lru_cache

# The index's tokenizer, unicode61 with '_' as a letter, splits at the same characters.
_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_HEX = re.compile(r"(?=.*\d)[0-9a-f]{6,}", re.IGNORECASE)


# A query has at most this many terms, and is cut off after as many characters: SQLite takes half a
# second for so many words, and the square of that for more.
MOST_TERMS = 500
_QUERY_CHARACTERS = 65_536

# The most words of a phrase.
_PHRASE_WORDS = 32


def parts(text: str) -> str:
    """The parts of compound identifiers: ``getUserName`` -> ``get User Name``."""
    return " ".join(filter(None, map(_parts_of, _WORD.findall(text))))


@lru_cache(maxsize=1 << 16)  # most words of a text occur in it often
def _parts_of(word: str) -> str:
    pieces = _PART.findall(word)
    return " ".join(pieces) if len(pieces) > 1 else ""


def terms(text: str) -> list[str]:
    """The words of a text as FTS5 queries that can be joined by OR.

    Adjacent words of one path or name (``tests/test_io.py::test_load``) are also searched as a
    phrase, which ranks exact names first. Hexadecimal ids match by prefix, as git shortens them.

    Of a text with more than `MOST_TERMS`, the first ones are taken.
    """
    found: dict[str, None] = {}  # in order, each once
    for name in text[:_QUERY_CHARACTERS].split():
        words = _WORD.findall(name)
        if len(words) > 1:
            found['"' + " ".join(words[:_PHRASE_WORDS]) + '"'] = None
        for word in words:
            found[f'"{word}"' + ("*" if _HEX.fullmatch(word) else "")] = None
            for piece in _parts_of(word).split():
                found[f'"{piece}"'] = None
        if len(found) >= MOST_TERMS:
            break
    return list(found)[:MOST_TERMS]


def query(text: str) -> str | None:
    """An FTS5 query that matches any word of a text (`terms`); None if the text has none."""
    return " OR ".join(terms(text)) or None
