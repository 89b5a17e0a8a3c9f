"""Forgetting: memories, and with the last memory of a content everything that came from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from clara_mlx.errors import StorageFailed
from clara_mlx.store import filters, ledger
from clara_mlx.store.connection import Connection
from clara_mlx.store.dialect import Dialect
from clara_mlx.store.driver import is_full
from clara_mlx.store.protocol import Database

logger = logging.getLogger(__name__)


def forget(file: Database, where: Mapping[str, Any]) -> int:
    """Remove the memories that match a filter; returns their number."""
    file.settle()
    try:
        removed = _remove(file, where)
    except StorageFailed as error:
        if not is_full(error.__cause__):
            raise
        # Without what takes most of the log, it may fit into the space that the log has.
        removed = _remove(file, where, words=False)
        logger.warning(
            "%s: the disk is full, so words of what was forgotten may still be in the full-text "
            "index; free some space, and run `clara-mlx vacuum`",
            file.path,
        )
    file.settle()  # the arrivals may still hold it, if another process adds to them
    file.empty_traces()
    return removed


def _remove(file: Database, where: Mapping[str, Any], *, words: bool = True) -> int:
    """Remove memories, all or none, and unless that is put off what the index has of their words.

    Deleted rows have only a tombstone there; optimising it removes their words.
    """
    wanted, parameters = filters.condition(where, file.dialect)
    with file.write(alone=True) as connection:
        rows = connection.execute(
            f"SELECT m.id, m.session, m.content_id FROM memories m WHERE {wanted}", parameters
        ).fetchall()
        ids = [(row["id"],) for row in rows]
        connection.executemany("DELETE FROM memories WHERE id = ?", ids)
        _forget_sessions(connection, file.dialect, where, {row["session"] for row in rows})
        _remove_orphans(connection, file.dialect, {row["content_id"] for row in rows})
        file.dialect.finish_removal(connection, words=words)
    file.removed += 1
    return len(ids)


def _remove_orphans(connection: Connection, dialect: Dialect, content_ids: set[int]) -> None:
    """Remove those contents of which no memory is left, with all that was made of them."""
    rows = connection.execute(
        f"SELECT c.id FROM contents c WHERE {dialect.is_among('c.id')} "
        "AND NOT EXISTS (SELECT 1 FROM memories m WHERE m.content_id = c.id)",
        [dialect.many(sorted(content_ids))],
    ).fetchall()
    orphans = [dialect.many([row["id"] for row in rows])]
    chunks = f"SELECT id FROM chunks WHERE {dialect.is_among('content_id')}"
    drop_sketches(connection, dialect, chunks, orphans)
    connection.execute(f"DELETE FROM contents WHERE {dialect.is_among('id')}", orphans)


def _forget_sessions(
    connection: Connection,
    dialect: Dialect,
    where: Mapping[str, Any],
    touched: set[str | None],
) -> None:
    """Forget the names of the sessions of which nothing is left, or that were to be forgotten."""
    if where.keys() == {"session"}:  # of which there may have been no memory at all
        named = where["session"]
        touched = touched.union([named] if isinstance(named, str | None) else named)
    left = "SELECT 1 FROM memories WHERE session = ? LIMIT 1"
    ledger.forget_sessions(
        connection,
        dialect,
        (
            session
            for session in touched
            if session is not None and not connection.execute(left, (session,)).fetchone()
        ),
    )


def drop_sketches(
    connection: Connection, dialect: Dialect, query: str, parameters: Sequence[Any] = ()
) -> None:
    """Remove the sketches of the chunks that a query selects; in a file no foreign key does."""
    ids = [row[0] for row in connection.execute(query, parameters).fetchall()]
    if ids:
        for (space_id,) in connection.execute("SELECT id FROM spaces").fetchall():
            dialect.sketches.remove(connection, space_id, ids)
