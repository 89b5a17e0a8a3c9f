"""The vec0 table of a space's sketches: ``sketches_<space>``, a row for each chunk with latents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from clara_mlx.store.driver import Connection
from clara_mlx.store.index import Ids
from clara_mlx.store.sketch import Bits

# Rows that vec0 keeps together; of 128 to 1024, they all search alike.
_ROWS_TOGETHER = 256


def create(connection: Connection, space_id: int, bits: int) -> None:
    """Make the table, for sketches of so many bits."""
    connection.execute(
        f"CREATE VIRTUAL TABLE sketches_{space_id} "
        f"USING vec0(bits bit[{bits}], chunk_size={_ROWS_TOGETHER})"
    )


def add(connection: Connection, space_id: int, sketches: Iterable[tuple[int, bytes]]) -> None:
    """Keep the sketches of chunks that have none."""
    connection.executemany(
        f"INSERT INTO sketches_{space_id} (rowid, bits) VALUES (?, vec_bit(?))", sketches
    )


def remove(connection: Connection, space_id: int, chunk_ids: Sequence[int]) -> None:
    """Remove the sketches of chunks, in a new epoch: indexes in memory are read again."""
    connection.executemany(
        f"DELETE FROM sketches_{space_id} WHERE rowid = ?", [(id,) for id in chunk_ids]
    )
    connection.execute("UPDATE spaces SET epoch = epoch + 1 WHERE id = ?", (space_id,))


def rebuild(connection: Connection, space_id: int, bits: int) -> None:
    """Copy the table: vec0 frees rows that it keeps together only when all of them are gone."""
    kept = connection.execute(f"SELECT rowid, bits FROM sketches_{space_id}").fetchall()
    connection.execute(f"DROP TABLE sketches_{space_id}")
    create(connection, space_id, bits)
    add(connection, space_id, map(tuple, kept))
    connection.execute("UPDATE spaces SET epoch = epoch + 1 WHERE id = ?", (space_id,))


def read_all(connection: Connection, space_id: int, bits: int) -> tuple[Ids, Bits] | None:
    """Chunk ids (n,) and sketches (n, bits / 8) of the whole table; None if it is damaged.

    From the tables in which vec0 0.1.9 keeps its rows together (sqlite-vec's ARCHITECTURE.md):
    one by one they take several times as long.
    """
    rows = connection.execute(
        f"SELECT c.validity, c.rowids, v.vectors FROM sketches_{space_id}_chunks c "
        f"JOIN sketches_{space_id}_vector_chunks00 v ON v.rowid = c.chunk_id"
    ).fetchall()
    ids, sketches = [np.empty(0, np.int64)], [np.empty((0, bits // 8), np.uint8)]
    for validity, rowids, vectors in rows:
        n = _ROWS_TOGETHER
        if [_length(x) for x in (validity, rowids, vectors)] != [n // 8, n * 8, n * bits // 8]:
            return None
        is_there = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little") > 0
        ids.append(np.frombuffer(rowids, "<i8")[is_there])
        sketches.append(np.frombuffer(vectors, np.uint8).reshape(n, -1)[is_there])
    return np.concatenate(ids), np.concatenate(sketches)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, bytes) else -1
