"""Memories as plain tables that any SQLite reads: originals as text, times in ISO 8601.

The memory's own file has compressed originals, times in seconds, and full-text tables that only
newer versions of SQLite open. What is written here needs nothing but SQLite 3.31 with FTS5;
docs/EXPORT.md describes the tables, `plain_schema` makes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clara_mlx.errors import NotFound, Progress, StoreError, reason
from clara_mlx.store import salvage
from clara_mlx.store.driver import Connection, driver
from clara_mlx.store.exports import Incomplete
from clara_mlx.store.ledger import KEYS, SUMS
from clara_mlx.store.newcomer import readable, text_of
from clara_mlx.store.opening import short_name
from clara_mlx.store.originals import Originals
from clara_mlx.store.plain_schema import AT_THE_END, FORMAT, SCHEMA
from clara_mlx.store.stored import Gone, StoredMemory

_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def write(
    store: Originals,
    to: Path,
    where: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the memories that match a filter, and the ledger, as tables; returns their number.

    One original at a time is in memory. With a filter, of the ledger only what belongs to the
    sessions of those memories is written.

    Args:
        store: The memory file.
        to: An empty file.
        where: A filter, see `filters.condition`.
        progress: Called with the memories that are written, and all.

    Raises:
        Incomplete: Some memories are damaged; all others were written.
        StoreError: The file can't be written.
    """
    store.settle()
    module = driver()
    connection = module.connect(to, isolation_level=None)
    try:
        # It is complete or thrown away, and synced by whoever gives it its name.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for statement in SCHEMA:
            connection.execute(statement)
        memories, problems = salvage.memories(store, where)
        handles = _write_memories(store, connection, memories, problems, progress)
        _write_blocks(store, connection)
        _write_ledger(store, connection, {m.session for m in memories} if where else None)
        _write_about(store, connection, len(handles), where)
        for statement in AT_THE_END:
            connection.execute(statement)
        connection.execute("COMMIT")
    except module.Error as error:
        raise StoreError(f"{to}: {reason(error)}") from error
    finally:
        connection.close()
    if problems:
        raise Incomplete(store.path, len(handles), problems)
    return len(handles)


def iso(seconds: float) -> str:
    """A time as ISO 8601 in UTC, with milliseconds; just the seconds if no calendar has it."""
    try:
        time = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return str(seconds)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_original(store: Originals, id: int) -> tuple[bytes, str]:
    """The bytes of a content, and its text as its chunks count it, with U+FFFD for what is none.

    Nothing is kept in memory, unlike by `Store.text`.

    Raises:
        Gone: It was forgotten.
        StoreError: It is damaged.
    """
    content = store.content(id)
    (row,) = store.read(
        'SELECT kind, (SELECT max("end") FROM chunks WHERE content_id = c.id) AS last '
        "FROM contents c WHERE id = ?",
        (id,),
    )
    end = row["last"] if row["kind"] == "bytes" else None
    text = readable(text_of(content, row["kind"], end))
    return content, text if _is_unicode(text) else text.translate(_SURROGATES)


def _is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which no other program reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def project_of(memory: StoredMemory) -> str | None:
    """The project that a memory belongs to, as its metadata says."""
    project = memory.metadata.get("project")
    return project if isinstance(project, str) else None


def metadata_of(memory: StoredMemory) -> str:
    """The metadata of a memory as JSON, in letters that every reader takes."""
    written = json.dumps(memory.metadata, ensure_ascii=False)
    return written.encode("utf-8", "replace").decode()


def _write_memories(
    store: Originals,
    connection: Connection,
    memories: Iterable[StoredMemory],
    problems: list[str],
    progress: Progress | None,
) -> set[str]:
    """Write memories with their originals and chunks; returns the handles of what was written."""
    memories = list(memories)
    written: set[str] = set()
    originals: set[int] = set()
    for number, memory in enumerate(memories, 1):
        try:
            id = store.content_id(memory.handle)
            if id not in originals:
                _write_original(store, connection, id)
                originals.add(id)
        except (Gone, NotFound):
            continue  # it was forgotten since
        except (StoreError, TypeError, ValueError) as error:
            if not salvage.is_damage(error):
                raise
            problems.append(f"memory {memory.handle}: {error}")
            continue
        connection.execute(
            "INSERT INTO memories VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                memory.handle,
                iso(memory.created_at),
                memory.source,
                memory.session,
                project_of(memory),
                id,
                metadata_of(memory),
            ),
        )
        written.add(memory.handle)
        if progress:
            progress(number, len(memories), "memories")
    return written


def _write_original(store: Originals, connection: Connection, id: int) -> None:
    """Write an original and its chunks; the bytes, too, if the text does not give them back."""
    content, text = read_original(store, id)
    exact = text.encode("utf-8", "replace") == content
    digest = hashlib.sha256(content).hexdigest()
    kind = "text" if exact else "bytes"
    connection.execute(
        "INSERT INTO originals VALUES (?, ?, ?, ?, ?, ?)",
        (id, digest, kind, len(content), text, None if exact else content),
    )
    connection.executemany(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)",
        [(one.id, id, one.start, one.end, one.tokens) for one in store.chunks(id)],
    )


def _write_blocks(store: Originals, connection: Connection) -> None:
    """Write the texts that stand for the memories that were written."""
    handles = "SELECT handle FROM memories"
    there = {row[0] for row in connection.execute(handles).fetchall()}
    blocks: set[bytes] = set()
    for row in store.read("SELECT block, handle FROM mentions"):
        if row["handle"] in there:
            blocks.add(row["block"])
            connection.execute(
                "INSERT INTO mentions VALUES (?, ?)", (row["block"].hex(), row["handle"])
            )
    for digest in blocks:
        for row in store.read("SELECT kind, handle, text FROM blocks WHERE digest = ?", (digest,)):
            connection.execute(
                "INSERT INTO blocks VALUES (?, ?, ?, ?)",
                (digest.hex(), row["kind"], row["handle"], row["text"]),
            )


def _write_ledger(
    store: Originals, connection: Connection, sessions: set[str | None] | None
) -> None:
    """Write the rounds, what they used, and the sums of days; of all sessions if that is None."""
    ids = set()
    for row in store.read("SELECT * FROM rounds ORDER BY id"):
        if sessions is not None and row["session"] not in sessions:
            continue
        ids.add(row["id"])
        known = row["cached_expected"] if row["cached_reported"] is None else row["cached_reported"]
        cached = min(row["tokens_sent"], known)
        added = {"cached": cached, "prefilled": row["tokens_sent"] - cached, "at": iso(row["at"])}
        _insert(connection, "rounds", {**dict(row), **added})
    handles = {row[0] for row in connection.execute("SELECT handle FROM memories").fetchall()}
    for row in store.read("SELECT handle, round, how FROM uses"):
        if row["round"] in ids and row["handle"] in handles:
            _insert(connection, "uses", dict(row))
    columns = ", ".join((*KEYS, "first_at", "last_at", *SUMS))
    for row in store.read(f"SELECT {columns} FROM days ORDER BY day"):
        if sessions is None or row["session"] in sessions:
            times = {name: iso(row[name]) for name in ("first_at", "last_at")}
            _insert(connection, "days", {**dict(row), **times})


def _insert(connection: Connection, table: str, row: Mapping[str, Any]) -> None:
    """Insert a row; what is not known is an empty text in the ledger, and NULL here."""
    unknown = ("session", "project", "agent")
    values = [None if name in unknown and value == "" else value for name, value in row.items()]
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", values)


def _write_about(
    store: Originals, connection: Connection, memories: int, where: Mapping[str, Any] | None
) -> None:
    rows = {
        "made by": "clara-mlx export --sqlite",
        "format": str(FORMAT),
        "memory": short_name(store.path),
        "exported at": iso(datetime.now(UTC).timestamp()),
        "memories": str(memories),
        "filter": json.dumps(dict(where or {}), default=str),
    }
    connection.executemany("INSERT INTO about VALUES (?, ?)", list(rows.items()))
