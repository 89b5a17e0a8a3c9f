"""Indexing again what an older clara-mlx indexed in another way, a little at a time.

A file says up to which row that is still to be done; it is done from there downwards, so that the
newest are first. Nothing waits for it: what was indexed before is found as before, and each search
does a little of it, as does the background compression when it has nothing else to do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from clara_mlx.errors import StoreError
from clara_mlx.store import descriptions
from clara_mlx.store.driver import BUSY_SECONDS, Connection, driver, transaction
from clara_mlx.store.newcomer import index_columns
from clara_mlx.store.originals import Originals
from clara_mlx.store.sqlite_dialect import SQLITE
from clara_mlx.store.store import Store

#: Seconds of one search that go into it.
SEARCH_SECONDS = 0.1

# Rows of one transaction; other writers get their turn between two of them.
_TOGETHER = 32


def work(store: Originals, seconds: float) -> bool:
    """Index again for about so many seconds; true if that was done and there is more.

    It gives up at once if the file can't be written or another process writes; another call goes
    on where it stopped. A team's database has nothing to be indexed again.
    """
    if not isinstance(store, Store) or store.obstacle or not _marks(store):
        return False
    deadline = monotonic() + seconds
    connection = store.connection
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        while marks := _marks(store):
            for table, index_again in _TABLES.items():
                if table in marks:
                    with transaction(connection):
                        _index_some(store, table, index_again)
                        connection.execute("COMMIT")
            if monotonic() > deadline:
                break
    except (driver().Error, StoreError):
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS:.0f}")
    return bool(_marks(store))


def _marks(store: Store) -> set[str]:
    """The tables that have rows to be indexed again."""
    rows = store.read("SELECT key FROM meta WHERE key IN ('reindex memories', 'reindex chunks')")
    return {row[0].removeprefix("reindex ") for row in rows}


def _index_some(
    store: Store, table: str, index_again: Callable[[Store, Connection, Any], None]
) -> None:
    """Index some rows of a table again, in a transaction, and note how far it has come."""
    connection = store.connection
    key = f"reindex {table}"
    last = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if last is None:  # another process has done it
        return
    rows = connection.execute(
        f"SELECT * FROM {table} WHERE id <= ? ORDER BY id DESC LIMIT ?", (last[0], _TOGETHER)
    ).fetchall()
    for row in rows:
        index_again(store, connection, row)
    if len(rows) < _TOGETHER:
        connection.execute("DELETE FROM meta WHERE key = ?", (key,))
    else:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (rows[-1]["id"] - 1, key))


def _index_memory(store: Store, connection: Connection, row: Any) -> None:
    described = descriptions.columns(row["source"], row["metadata"])
    if described is not None:
        SQLITE.index_memory(connection, row["id"], described)


def _index_chunk(store: Store, connection: Connection, row: Any) -> None:
    with suppress(StoreError):  # what is damaged stays as it was indexed
        text = store.text(row["content_id"])
        start, end = row["start"], row["end"]
        columns = index_columns(text, start, end)
        if columns[0] != text[start:end]:  # else it was indexed like this before
            connection.execute(
                "INSERT OR REPLACE INTO chunk_text (rowid, text, parts) VALUES (?, ?, ?)",
                (row["id"], *columns),
            )


_TABLES: dict[str, Callable[[Store, Connection, Any], None]] = {
    "memories": _index_memory,
    "chunks": _index_chunk,
}
