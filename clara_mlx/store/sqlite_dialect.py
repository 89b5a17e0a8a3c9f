"""SQLite's words, where they are not those of PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from clara_mlx.store import sketch_table
from clara_mlx.store.connection import Connection
from clara_mlx.store.dialect import ChunkRow, Dialect, MemoryRow


class SqliteDialect(Dialect):
    """The words of SQLite."""

    sketches = sketch_table

    days_key = "day, session, project, agent, model"

    def is_one_of(self, what: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        """The condition that a value is one of these texts or digests, and its parameters."""
        return f"{what} IN ({','.join('?' * len(values))})", list(values)

    def is_among(self, what: str) -> str:
        """The condition that a value is one of a list, which is one parameter made by `many`."""
        return f"{what} IN (SELECT value FROM json_each(?))"

    def many(self, values: Sequence[Any]) -> Any:
        """Numbers or strings as the one parameter that `is_among` takes."""
        return json.dumps(list(values))

    def field(self, key: str, table: str = "") -> str:
        """A value at the top of memories' metadata; the index of projects is on exactly this."""
        metadata = f"{table}.metadata" if table else "metadata"
        found = f"""json_extract({metadata}, '$."{key}"')"""
        return f"CASE WHEN json_valid({metadata}) THEN {found} END"

    def lesser(self, one: str, other: str) -> str:
        """The smaller one of two values."""
        return f"min({one}, {other})"

    def greater(self, one: str, other: str) -> str:
        """The greater one of two values."""
        return f"max({one}, {other})"

    def local_date(self, seconds: str) -> str:
        """The date of a time in seconds since 1970, where this process runs."""
        return f"date({seconds}, 'unixepoch', 'localtime')"

    def metadata_conditions(
        self, key: str, values: Sequence[Any], parameters: list[Any]
    ) -> Iterable[str]:
        """Conditions on a key of metadata, by the types of the values."""
        path = f'$."{key}"'
        if None in values:
            yield "json_extract(m.metadata, ?) IS NULL"
            parameters.append(path)
        by_type: dict[str, list[Any]] = {}
        for value in values:
            if value is not None:
                by_type.setdefault(_json_types(value), []).append(value)
        for types, some in by_type.items():
            yield (
                f"(json_type(m.metadata, ?) IN ({types})"
                f" AND json_extract(m.metadata, ?) IN ({','.join('?' * len(some))}))"
            )
            parameters += [path, path, *some]

    def hold_content(self, connection: Connection, content_id: int) -> None:
        """Nothing: a transaction that writes has the file for itself."""

    def insert_memory(self, connection: Connection, row: MemoryRow) -> int:
        """Insert a memory with the words of its description; returns its id."""
        (id,) = connection.execute(
            "INSERT INTO memories (handle, content_id, source, session, created_at, metadata) "
            "VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
            (
                *(row.handle, row.content_id, row.source, row.session),
                *(row.created_at, row.metadata),
            ),
        ).fetchone()
        if row.described is not None:
            self.index_memory(connection, id, row.described)
        return int(id)

    def index_memory(self, connection: Connection, id: int, described: tuple[str, str]) -> None:
        """Index the words of a memory's description, or index them again."""
        connection.execute(
            "INSERT OR REPLACE INTO memory_text (rowid, text, parts) VALUES (?, ?, ?)",
            (id, *described),
        )

    def insert_chunks(
        self, connection: Connection, content_id: int, rows: Sequence[ChunkRow]
    ) -> None:
        """Insert the chunks of a content with their words."""
        for start, end, tokens, piece, parts in rows:
            (id,) = connection.execute(
                'INSERT INTO chunks (content_id, start, "end", tokens) VALUES (?, ?, ?, ?) '
                "RETURNING id",
                (content_id, start, end, tokens),
            ).fetchone()
            connection.execute(
                "INSERT INTO chunk_text (rowid, text, parts) VALUES (?, ?, ?)", (id, piece, parts)
            )

    def finish_removal(self, connection: Connection, *, words: bool = True) -> None:
        """Optimise the index: of deleted rows it has tombstones, beside which their words stay."""
        for table in ("chunk_text", "memory_text") if words else ():
            connection.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")


SQLITE = SqliteDialect()


def _json_types(value: Any) -> str:
    """The types, as SQLite names those of JSON, of what can be equal to a value."""
    if isinstance(value, bool):
        return "'true', 'false'"
    return "'text'" if isinstance(value, str) else "'integer', 'real'"
