"""Finds exact identifiers in any text: what an agent must not lose when the text is compacted.

The rules stand beside this module, by what they find. Every repetition in their regular expressions
is possessive or bounded, so that the work grows linearly with the text, whatever it holds. An
expression begins with characters, not with a look at what is before them, because ``re`` skips
quickly to where its first character can be; a line begins with the line feed before it. The comment
above an expression is a text that it matches.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from clara_mlx.tool_outputs.addresses import addresses, urls
from clara_mlx.tool_outputs.error_names import codes, exceptions
from clara_mlx.tool_outputs.packages import packages
from clara_mlx.tool_outputs.paths import lines, paths
from clara_mlx.tool_outputs.pieces import cut_into_pieces
from clara_mlx.tool_outputs.spans import MAX_LENGTH, Rule
from clara_mlx.tool_outputs.targets import resources, targets
from clara_mlx.tool_outputs.test_names import test_names
from clara_mlx.tool_outputs.undress import Undressed, undress
from clara_mlx.tool_outputs.versions import hashes, uuids, versions

Kind = Literal[
    "url",
    "test",
    "target",
    "resource",
    "package",
    "path",
    "uuid",
    "hash",
    "address",
    "version",
    "code",
    "exception",
    "line",
]

# Characters around a place that can matter to what is found there; two lengths of a URL do.
_CONTEXT = 4 * MAX_LENGTH


@dataclass(frozen=True, slots=True)
class Identifier:
    """One identifier and its place: ``undress(source[start:end]).text == text``.

    A path includes the location that is written against it (``a.py:12:5``, ``a.ts(12,5)``).
    """

    kind: Kind
    text: str
    start: int
    end: int


def identifiers(text: str, limit: int | None = None) -> tuple[Identifier, ...]:
    """The identifiers that a reader of ``text`` sees, in their order, each kind and text once.

    None is inside another.

    Args:
        text: Any text; no character is special.
        limit: Greatest number of identifiers; the first ones are given. None: all.
    """
    view = undress(text)
    found = _find(view.bare, limit)
    if view.bare is not view:
        # What stands before lines can name something as well.
        found = _add(found, _find(view, limit))[:limit]
    return found


def occurrences(text: str) -> tuple[Identifier, ...]:
    """Every place of every identifier that a reader of ``text`` sees, in their order.

    None overlap.
    """
    return _find(undress(text), None, once=False)


def _find(view: Undressed, limit: int | None, *, once: bool = True) -> tuple[Identifier, ...]:
    """The identifiers of a view's text, with their places in the original.

    Each kind and text is given ``once``, or at every place.
    """
    kept: dict[tuple[int, str, int], Identifier] = {}
    last = 0
    for words, offset, first, end_of_piece in cut_into_pieces(view.text, _CONTEXT):
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
            key = (rank, exact, 0 if once else start + offset)
            if key not in kept:
                if limit is not None and len(kept) >= limit:
                    return tuple(kept.values())
                span = view.original_span(start + offset, last)
                kept[key] = Identifier(_KINDS[rank], exact, *span)
    return tuple(kept.values())


def _add(found: tuple[Identifier, ...], others: tuple[Identifier, ...]) -> tuple[Identifier, ...]:
    """Identifiers with those of another view that are new and stand beside them, in their order."""
    known = {(one.kind, one.text) for one in found}
    ends = [one.end for one in found]
    added = list(found)
    for one in others:
        following = bisect_right(ends, one.start)
        beside = following == len(found) or one.end <= found[following].start
        if beside and (one.kind, one.text) not in known:
            added.append(one)
    return tuple(sorted(added, key=lambda one: one.start))


# If two rules find something at the same place, the one that comes first here wins.
_RULES: dict[Kind, Rule] = {
    "url": urls,
    "test": test_names,
    "target": targets,
    "resource": resources,
    "package": packages,
    "path": paths,
    "uuid": uuids,
    "hash": hashes,
    "address": addresses,
    "version": versions,
    "code": codes,
    "exception": exceptions,
    "line": lines,
}
_KINDS = tuple(_RULES)
