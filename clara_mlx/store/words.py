"""Words for the full-text index: identifiers whole and in parts, and queries that can't fail."""

from __future__ import annotations

import re

# unicode61 with '_' as a letter splits at everything that \w is not.
_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_HEX = re.compile(r"(?=.*\d)[0-9a-f]{6,}", re.IGNORECASE)


def parts(text: str) -> str:
    """The parts of compound identifiers: ``getUserName`` -> ``get User Name``."""
    found = []
    for word in _WORD.findall(text):
        pieces = _PART.findall(word)
        if len(pieces) > 1:
            found += pieces
    return " ".join(found)


def query(text: str) -> str | None:
    """An FTS5 query that matches any word of a text; None if it has none.

    Adjoining words of one path or name (``tests/test_io.py::test_load``) are also searched as a
    phrase, which ranks exact names first; hexadecimal ids match by prefix, as git shows them.
    """
    terms: dict[str, None] = {}  # in order, each once
    for name in text.split():
        words = _WORD.findall(name)
        if len(words) > 1:
            terms['"' + " ".join(words) + '"'] = None
        for word in words:
            terms[f'"{word}"' + ("*" if _HEX.fullmatch(word) else "")] = None
            for piece in _PART.findall(word) if len(_PART.findall(word)) > 1 else ():
                terms[f'"{piece}"'] = None
    return " OR ".join(terms) or None
