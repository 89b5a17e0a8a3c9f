"""Finds exact identifiers in any text: what an agent must not lose when the text is compacted.

The rules stand beside this module, by what they find. Every repetition in their regular expressions
is possessive or bounded, so that the work grows linearly with the text, whatever it holds. An
expression begins with characters, not with a look at what is before them, because ``re`` skips
quickly to where its first character can be; a line begins with the line feed before it. The comment
above an expression is a text that it matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clara_mlx.tool_outputs.addresses import urls
from clara_mlx.tool_outputs.error_names import codes, exceptions
from clara_mlx.tool_outputs.paths import lines, paths
from clara_mlx.tool_outputs.pieces import cut_into_pieces
from clara_mlx.tool_outputs.spans import MAX_LENGTH, Rule
from clara_mlx.tool_outputs.test_names import test_names
from clara_mlx.tool_outputs.versions import hashes, uuids, versions

Kind = Literal["url", "test", "path", "uuid", "hash", "version", "code", "exception", "line"]

# Characters around a place that can matter to what is found there; two lengths of a URL do.
_CONTEXT = 4 * MAX_LENGTH


@dataclass(frozen=True, slots=True)
class Identifier:
    """One identifier and its place: ``source[start:end] == text``.

    A path includes the location that is written against it (``a.py:12:5``, ``a.ts(12,5)``).
    """

    kind: Kind
    text: str
    start: int
    end: int


def identifiers(text: str, limit: int | None = None) -> tuple[Identifier, ...]:
    """The identifiers of ``text`` in their order, none inside another, each kind and text once.

    Args:
        text: Any text; no character is special.
        limit: Greatest number of identifiers; the first ones are given. None: all.
    """
    kept: dict[tuple[int, str], Identifier] = {}
    last = 0
    for words, offset, first, end_of_piece in cut_into_pieces(text, _CONTEXT):
        found: list[tuple[int, int, int]] = []
        for rank, rule in enumerate(_RULES.values()):
            found += [
                (start, rank, -end)
                for start, end in rule(words)
                if first <= start < end_of_piece and end - start <= MAX_LENGTH
            ]
        for start, rank, minus_end in sorted(found):
            if start + offset < last:
                continue
            last = offset - minus_end
            exact = words[start:-minus_end]
            if (rank, exact) not in kept:
                if limit is not None and len(kept) >= limit:
                    return tuple(kept.values())
                kept[rank, exact] = Identifier(_KINDS[rank], exact, start + offset, last)
    return tuple(kept.values())


# If two rules find something at the same place, the one that comes first here wins.
_RULES: dict[Kind, Rule] = {
    "url": urls,
    "test": test_names,
    "path": paths,
    "uuid": uuids,
    "hash": hashes,
    "version": versions,
    "code": codes,
    "exception": exceptions,
    "line": lines,
}
_KINDS = tuple(_RULES)
