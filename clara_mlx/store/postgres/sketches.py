"""The tables of sketches: ``sketches_<space>``, a row for each chunk with latents.

While they are remade, the new ones are in ``sketches_<space>_new``. Each table may have an index,
named as it is with ``_near`` added, see `sketch_indexing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clara_mlx.store.connection import Connection, Reader


def create(connection: Connection, space_id: int, bits: int) -> None:
    """Create the table for sketches of ``bits`` bits."""
    _create(connection, f"sketches_{space_id}", bits)


def _create(connection: Connection, table: str, bits: int) -> None:
    connection.execute(
        f"CREATE TABLE {table} (chunk_id bigint PRIMARY KEY "
        f"REFERENCES chunks (id) ON DELETE CASCADE, bits bit({bits}) NOT NULL)"
    )
    # They are random, so that compressing them takes time and saves nothing.
    connection.execute(
        f"ALTER TABLE {table} ALTER bits SET STORAGE EXTERNAL, ALTER bits SET STATISTICS 0"
    )


def drop(connection: Connection, space_id: int) -> None:
    """Drop the table."""
    connection.execute(f"DROP TABLE IF EXISTS sketches_{space_id}_new")
    connection.execute(f"DROP TABLE sketches_{space_id}")


def add(connection: Connection, space_id: int, sketches: Iterable[tuple[int, bytes]]) -> None:
    """Insert sketches, as (chunk id, bits), of chunks that have none."""
    _add(connection, f"sketches_{space_id}", sketches)


def _add(connection: Connection, table: str, sketches: Iterable[tuple[int, bytes]]) -> None:
    # Of chunks that were forgotten meanwhile there is nothing to find.
    connection.executemany(
        f"INSERT INTO {table} (chunk_id, bits) SELECT id, ?::bit varying FROM chunks WHERE id = ?",
        [(bit_string(bits), id) for id, bits in sketches],
    )


def remove(connection: Connection, space_id: int, chunk_ids: Sequence[int]) -> None:
    """Delete the sketches of chunks, and begin a new epoch if there were any.

    Workers cut texts anew, which have none yet, all the time; searches must not begin again for it.
    """
    deleted = connection.execute(
        f"DELETE FROM sketches_{space_id} WHERE chunk_id = ANY(?)", (list(chunk_ids),)
    ).rowcount
    if deleted:
        connection.execute("UPDATE spaces SET epoch = epoch + 1 WHERE id = ?", (space_id,))


def ids(file: Reader, space_id: int) -> set[int]:
    """The chunks that have a sketch."""
    return {row[0] for row in file.read(f"SELECT chunk_id FROM sketches_{space_id}")}


def read(file: Reader, space_id: int, chunk_ids: Sequence[int]) -> dict[int, bytes]:
    """The sketches of chunks, by their ids; without those that have none."""
    rows = file.read(
        f"SELECT chunk_id, bits::text FROM sketches_{space_id} WHERE chunk_id = ANY(?)",
        (list(chunk_ids),),
    )
    return {row[0]: int(row[1], 2).to_bytes(len(row[1]) // 8) for row in rows}


def bit_string(bits: bytes) -> str:
    """Bits as PostgreSQL writes them, the first bit of the first byte first."""
    return "x" + bits.hex()


# -- new sketches beside the old ones --------------------------------------------------------------


def create_new(connection: Connection, space_id: int, bits: int) -> None:
    """Create an empty table for new sketches, instead of one that was left behind."""
    connection.execute(f"DROP TABLE IF EXISTS sketches_{space_id}_new")
    _create(connection, f"sketches_{space_id}_new", bits)


def add_new(connection: Connection, space_id: int, sketches: Iterable[tuple[int, bytes]]) -> None:
    """Insert new sketches."""
    _add(connection, f"sketches_{space_id}_new", sketches)


def put_new_in_place(connection: Connection, space_id: int) -> None:
    """Drop the old sketches, and give the new ones their name."""
    table = f"sketches_{space_id}"
    connection.execute(f"DROP TABLE {table}")
    connection.execute(f"ALTER TABLE {table}_new RENAME TO {table}")
    for index in ("pkey", "near"):
        connection.execute(f"ALTER INDEX IF EXISTS {table}_new_{index} RENAME TO {table}_{index}")
