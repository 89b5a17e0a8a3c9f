"""Memories as a Parquet file: a row for each, with its original as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clara_mlx.errors import NotFound, Progress, StoreError
from clara_mlx.store import salvage
from clara_mlx.store.exports import Incomplete
from clara_mlx.store.originals import Originals
from clara_mlx.store.plain_sqlite import metadata_of, project_of, read_original
from clara_mlx.store.stored import Gone

# Bytes of originals that are in memory at a time, and become one group of rows.
_GROUP_BYTES = 16 << 20

# Rows of a group, at most.
_GROUP_ROWS = 10_000


def write(
    store: Originals,
    to: Path,
    where: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the memories that match a filter as one table; returns their number.

    Args:
        store: The memory file.
        to: The file, which is replaced.
        where: A filter, see `filters.condition`.
        progress: Called with the memories that are written, and all.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
        Incomplete: Some memories are damaged; all others were written.
        StoreError: The file can't be written.
    """
    import pyarrow
    from pyarrow import parquet

    store.settle()
    schema = pyarrow.schema(
        [
            ("handle", pyarrow.string()),
            ("created_at", pyarrow.timestamp("ms", tz="UTC")),
            ("source", pyarrow.string()),
            ("session", pyarrow.string()),
            ("project", pyarrow.string()),
            ("bytes", pyarrow.int64()),
            ("text", pyarrow.large_string()),
            ("metadata", pyarrow.string()),
        ]
    )
    problems: list[str] = []
    written = 0
    try:
        with parquet.ParquetWriter(to, schema, compression="zstd") as writer:
            for rows in _groups(store, where, problems, progress):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                written += len(rows)
    except (OSError, pyarrow.ArrowException) as error:
        raise StoreError(f"{to}: {error}") from error
    if problems:
        raise Incomplete(store.path, written, problems)
    return written


def _groups(
    store: Originals,
    where: Mapping[str, Any] | None,
    problems: list[str],
    progress: Progress | None,
) -> Iterator[list[dict[str, Any]]]:
    """The rows, some at a time; says of what is damaged what is wrong with it."""
    memories, wrong = salvage.memories(store, where)
    problems += wrong
    rows: list[dict[str, Any]] = []
    size = 0
    for number, memory in enumerate(memories, 1):
        try:
            content, text = read_original(store, store.content_id(memory.handle))
        except (Gone, NotFound):
            continue  # it was forgotten since
        except (StoreError, TypeError, ValueError) as error:
            if not salvage.is_damage(error):
                raise
            problems.append(f"memory {memory.handle}: {error}")
            continue
        rows.append(
            {
                "handle": memory.handle,
                "created_at": _time(memory.created_at),
                "source": memory.source,
                "session": memory.session,
                "project": project_of(memory),
                "bytes": len(content),
                "text": text,
                "metadata": metadata_of(memory),
            }
        )
        size += len(content)
        if size >= _GROUP_BYTES or len(rows) >= _GROUP_ROWS:
            yield rows
            rows, size = [], 0
        if progress:
            progress(number, len(memories), "memories")
    if rows:
        yield rows


def _time(seconds: float) -> datetime | None:
    """A time, or None if no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
