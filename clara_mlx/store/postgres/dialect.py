"""PostgreSQL's words, where they are not those of SQLite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from clara_mlx.store.connection import Connection
from clara_mlx.store.dialect import ChunkRow, Dialect, MemoryRow
from clara_mlx.store.postgres import local_dates, sketches, vectors
from clara_mlx.store.postgres.rows import ESCAPE, escape

# What stands for a lone surrogate where filters look: no filter can name one.
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), ESCAPE + "s")

# Whole numbers beyond these are doubles in SQLite's JSON.
_LARGEST_WHOLE = 2**63


class PostgresDialect(Dialect):
    """The words of PostgreSQL."""

    sketches = sketches
    indexed_chunks = "chunk_text WHERE piece = 0"

    days_key = "key"

    def is_one_of(self, what: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        """The condition that a value is one of these texts or digests, and its parameters."""
        if len(values) == 1:
            return f"{what} = ?", list(values)
        return f"{what} = ANY(?)", [list(values)]

    def is_among(self, what: str) -> str:
        """The condition that a value is one of a list, which is one parameter made by `many`."""
        return f"{what} = ANY(?)"

    def many(self, values: Sequence[Any]) -> Any:
        """Numbers or strings as the one parameter that `is_among` takes."""
        return list(values)

    def field(self, key: str, table: str = "") -> str:
        """A value at the top of memories' metadata, a string, number or bool, as text."""
        about = f"{table}.about" if table else "about"
        return (
            f"CASE jsonb_typeof({about} -> '{key}') WHEN 'object' THEN NULL "
            f"ELSE {about} ->> '{key}' END"
        )

    def lesser(self, one: str, other: str) -> str:
        """The smaller one of two values."""
        return f"least({one}, {other})"

    def greater(self, one: str, other: str) -> str:
        """The greater one of two values."""
        return f"greatest({one}, {other})"

    def local_date(self, seconds: str) -> str:
        """The date of a time in seconds since 1970, where this process runs."""
        return local_dates.local_date(seconds)

    def metadata_conditions(
        self, key: str, values: Sequence[Any], parameters: list[Any]
    ) -> Iterable[str]:
        """Conditions on a key of metadata; a single value is looked up in the index of them."""
        if None in values:
            yield "coalesce(m.about -> ?, 'null') = 'null'"
            parameters.append(key)
        some = [comparable(value) for value in values if value is not None]
        if len(some) == 1:
            yield "m.about @> ?::jsonb"
            parameters.append(json.dumps({escape(key): some[0]}))
        elif some:
            yield "m.about -> ? = ANY(?::jsonb[])"
            parameters += [key, [json.dumps(value) for value in some]]

    def hold_content(self, connection: Connection, content_id: int) -> None:
        """Let no other transaction cut this content into chunks until this one is done."""
        connection.execute("SELECT 1 FROM contents WHERE id = ? FOR UPDATE", (content_id,))

    def in_common_order(self, digests: Iterable[str]) -> Iterable[str]:
        """The same for all writers, lest each of two waits for what the other has inserted."""
        return sorted(digests)

    def insert_memory(self, connection: Connection, row: MemoryRow) -> int:
        """Insert a memory with the words of its description; returns its id."""
        return self.insert_memories(connection, [row])[0]

    def insert_memories(self, connection: Connection, rows: Sequence[MemoryRow]) -> list[int]:
        """Insert memories, whose ids grow in their order, by two statements; returns the ids."""
        columns = [
            (
                *(row.handle, row.content_id, row.source, row.session),
                *(float(row.created_at), row.metadata, about(row.metadata)),
            )
            for row in rows
        ]
        added = connection.execute(
            "INSERT INTO memories "
            "(handle, content_id, source, session, created_at, metadata, about) "
            "SELECT handle, content_id, source, session, created_at, metadata, about::jsonb "
            "FROM unnest(?::text[], ?::bigint[], ?::text[], ?::text[], ?::float8[], ?::text[], "
            "?::text[]) WITH ORDINALITY AS given "
            "(handle, content_id, source, session, created_at, metadata, about, place) "
            "ORDER BY place RETURNING id",
            [*map(list, zip(*columns, strict=True))],
        ).fetchall()
        ids = sorted(int(row["id"]) for row in added)
        described = [
            (id, *row.described) for id, row in zip(ids, rows, strict=True) if row.described
        ]
        if described:
            _insert_words(connection, "memory_text", described)
        return ids

    def insert_chunks(
        self, connection: Connection, content_id: int, rows: Sequence[ChunkRow]
    ) -> None:
        """Insert the chunks of a content with their words."""
        if not rows:
            return
        starts, ends, tokens, _, _ = zip(*rows, strict=True)
        added = connection.execute(
            'INSERT INTO chunks (content_id, start, "end", tokens) '
            'SELECT ?, start, "end", tokens FROM unnest(?::int[], ?::int[], ?::int[]) '
            'AS given (start, "end", tokens) RETURNING id, start',
            (content_id, *map(list, (starts, ends, tokens))),
        ).fetchall()
        ids = {start: id for id, start in added}
        _insert_words(
            connection, "chunk_text", [(ids[row[0]], text, parts) for *row, text, parts in rows]
        )

    def finish_removal(self, connection: Connection, *, words: bool = True) -> None:
        """Count a removal, so that other processes see that there was one."""
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('removals', '1') "
            "ON CONFLICT (key) DO UPDATE SET value = (meta.value::bigint + 1)::text"
        )


POSTGRES = PostgresDialect()


def _insert_words(
    connection: Connection, table: str, texts: Sequence[tuple[int, str, str]]
) -> None:
    """Insert the words of texts, given the ids of their chunks or memories and their columns."""
    rows = [
        (id, number, piece.length, piece.frequencies, piece.vector)
        for id, text, parts in texts
        for number, piece in enumerate(vectors.pieces(text, parts))
    ]
    connection.execute(
        f"INSERT INTO {table} (id, piece, length, frequencies, words) "
        "SELECT id, piece, length, frequencies, words::tsvector FROM "
        "unnest(?::bigint[], ?::int[], ?::int[], ?::bytea[], ?::text[]) "
        "AS given (id, piece, length, frequencies, words)",
        [*map(list, zip(*rows, strict=True))],
    )


def about(metadata: str) -> str:
    """The top of metadata as filters compare it, as JSON that PostgreSQL can hold.

    Objects and lists are empty objects, as no filter is equal to one; nor can one name a string
    with a lone surrogate.
    """
    given = json.loads(metadata)
    return json.dumps({_text(key): _value(value) for key, value in given.items()})


def _text(text: str) -> str:
    return escape(text).translate(_SURROGATES)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | dict):
        return {}
    return comparable(value)


def comparable(value: Any) -> Any:
    """A string, number or bool so that what SQLite finds equal is equal as ``jsonb``.

    Numbers are exact there, so that a double is written with all of its digits.
    """
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
        return value
    number = float(value)
    return int(number) if number.is_integer() else number
