"""The vec0 table of a space's sketches: ``sketches_<space>``, a row for each chunk with latents.

Only reading sketches brings in numpy: whoever searches by words does not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from clara_mlx.store.connection import Connection, Reader

if TYPE_CHECKING:
    from clara_mlx.store.sketch import Bits
    from clara_mlx.store.sketch_index import Ids

# Rows that vec0 keeps together; from 128 to 1024, searches are equally fast.
_ROWS_TOGETHER = 256


def create(connection: Connection, space_id: int, bits: int) -> None:
    """Create the table for sketches of ``bits`` bits."""
    connection.execute(
        f"CREATE VIRTUAL TABLE sketches_{space_id} "
        f"USING vec0(bits bit[{bits}], chunk_size={_ROWS_TOGETHER})"
    )


def drop(connection: Connection, space_id: int) -> None:
    """Drop the table."""
    connection.execute(f"DROP TABLE sketches_{space_id}")


def add(connection: Connection, space_id: int, sketches: Iterable[tuple[int, bytes]]) -> None:
    """Insert sketches, as (chunk id, bits), of chunks that have none."""
    connection.executemany(
        f"INSERT INTO sketches_{space_id} (rowid, bits) VALUES (?, vec_bit(?))", sketches
    )


def remove(connection: Connection, space_id: int, chunk_ids: Sequence[int]) -> None:
    """Delete the sketches of chunks, which has every process read its index again."""
    connection.executemany(
        f"DELETE FROM sketches_{space_id} WHERE rowid = ?", [(id,) for id in chunk_ids]
    )
    _begin_epoch(connection, space_id)


def rebuild(connection: Connection, space_id: int, bits: int) -> None:
    """Copy the table: vec0 frees rows that it keeps together only when all of them are gone."""
    kept = connection.execute(f"SELECT rowid, bits FROM sketches_{space_id}").fetchall()
    drop(connection, space_id)
    create(connection, space_id, bits)
    add(connection, space_id, map(tuple, kept))
    _begin_epoch(connection, space_id)


def ids(file: Reader, space_id: int) -> set[int]:
    """The chunks that have a sketch."""
    return {row[0] for row in file.read(f"SELECT rowid FROM sketches_{space_id}")}


def read(file: Reader, space_id: int, chunk_ids: Sequence[int]) -> dict[int, bytes]:
    """The sketches of chunks, by their ids; without those that have none."""
    marks = ",".join("?" * len(chunk_ids))
    rows = file.read(
        f"SELECT rowid, bits FROM sketches_{space_id} WHERE rowid IN ({marks})", chunk_ids
    )
    return {row[0]: row[1] for row in rows}


def _begin_epoch(connection: Connection, space_id: int) -> None:
    connection.execute("UPDATE spaces SET epoch = epoch + 1 WHERE id = ?", (space_id,))


def read_new(
    connection: Connection, space_id: int, bits: int, after: int
) -> tuple[Ids, Bits] | None:
    """Chunk ids (n,) and sketches (n, bits / 8) that were added after a latent; None if damaged.

    Args:
        connection: A connection, in the transaction in which ``after`` was compared.
        space_id: The space.
        bits: Length of a sketch.
        after: Id of the last latent whose sketch is known; 0 reads the whole table.
    """
    import numpy as np

    if after == 0:
        return _read_all(connection, space_id, bits)
    # The + makes SQLite go through the latents by their own ids.
    rows = connection.execute(
        f"SELECT l.chunk_id, s.bits FROM latents l JOIN sketches_{space_id} s "
        "ON s.rowid = l.chunk_id WHERE +l.space_id = ? AND l.id > ?",
        (space_id, after),
    ).fetchall()
    if any(_length(row[1]) != bits // 8 for row in rows):
        return None
    sketches = np.frombuffer(b"".join(row[1] for row in rows), np.uint8)
    return np.array([row[0] for row in rows], np.int64), sketches.reshape(len(rows), bits // 8)


def _read_all(connection: Connection, space_id: int, bits: int) -> tuple[Ids, Bits] | None:
    """The whole table, from the tables in which vec0 0.1.9 keeps its rows together.

    Reading row by row takes several times as long. The layout is in sqlite-vec's ARCHITECTURE.md.
    """
    import numpy as np

    rows = connection.execute(
        f"SELECT c.validity, c.rowids, v.vectors FROM sketches_{space_id}_chunks c "
        f"JOIN sketches_{space_id}_vector_chunks00 v ON v.rowid = c.chunk_id"
    ).fetchall()
    ids = [np.empty(0, np.int64)]
    sketches = [np.empty((0, bits // 8), np.uint8)]
    n = _ROWS_TOGETHER
    for validity, rowids, vectors in rows:
        if [_length(x) for x in (validity, rowids, vectors)] != [n // 8, n * 8, n * bits // 8]:
            return None
        is_used = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little") > 0
        ids.append(np.frombuffer(rowids, "<i8")[is_used])
        sketches.append(np.frombuffer(vectors, np.uint8).reshape(n, -1)[is_used])
    return np.concatenate(ids), np.concatenate(sketches)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, bytes) else -1
