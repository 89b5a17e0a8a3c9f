"""What is known of a memory beside its text, as words: the command that printed it, its source.

They have an index of their own, with a row for each memory that has any: the same content may have
been printed by several commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from clara_mlx.store import fields, filters, forms, words
from clara_mlx.store.filters import Where
from clara_mlx.store.protocol import Database

# Characters of a description that are indexed: a command with its arguments, but no file that is
# written with it.
_MOST_CHARACTERS = 1_000

# Descriptions whose words are kept at hand.
_KEPT = 1 << 10


def describe(source: str | None, metadata: dict[str, Any]) -> str:
    """What is known of a memory, as a text: its source and the strings of its metadata."""
    strings = [source, *metadata.values()]
    return " ".join(one for one in strings if isinstance(one, str))[:_MOST_CHARACTERS]


def columns(source: str | None, metadata: str) -> tuple[str, str] | None:
    """The two columns of the index for a memory's description, given its metadata as JSON.

    None if nothing is known of it.
    """
    text = describe(source, fields.read_metadata(metadata))
    return words.columns(text.encode("utf-8", "replace").decode()) if text else None


@lru_cache(maxsize=_KEPT)
def _words(text: str) -> frozenset[str]:
    found: set[str] = set()
    for word, parts in words.words_with_parts(text):
        for one in (word, *parts):
            found.update((one, forms.stem(one)))
    return frozenset(found)


def of_contents(file: Database, ids: Sequence[int], where: Where) -> dict[int, frozenset[str]]:
    """Words and stems of the description of each content's latest memory that matches a filter."""
    condition, parameters = filters.condition(where, file.dialect)
    rows = file.read(
        "SELECT content_id, source, metadata FROM memories WHERE id IN ("
        f"SELECT max(m.id) FROM memories m WHERE {file.dialect.is_among('m.content_id')} "
        f"AND {condition} GROUP BY m.content_id)",
        [file.dialect.many(ids), *parameters],
    )
    return {row[0]: _words(describe(row[1], fields.read_metadata(row[2]))) for row in rows}
