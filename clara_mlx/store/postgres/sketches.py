"""The tables of sketches: ``sketches_<space>``, a row for each chunk with latents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clara_mlx.store.connection import Connection, Reader


def create(connection: Connection, space_id: int, bits: int) -> None:
    """Create the table for sketches of ``bits`` bits."""
    connection.execute(
        f"CREATE TABLE sketches_{space_id} (chunk_id bigint PRIMARY KEY "
        f"REFERENCES chunks (id) ON DELETE CASCADE, bits bit({bits}) NOT NULL)"
    )
    connection.execute(f"ALTER TABLE sketches_{space_id} ALTER bits SET STATISTICS 0")


def drop(connection: Connection, space_id: int) -> None:
    """Drop the table."""
    connection.execute(f"DROP TABLE sketches_{space_id}")


def add(connection: Connection, space_id: int, sketches: Iterable[tuple[int, bytes]]) -> None:
    """Insert sketches, as (chunk id, bits), of chunks that have none."""
    connection.executemany(
        f"INSERT INTO sketches_{space_id} (chunk_id, bits) VALUES (?, ?::bit varying)",
        [(id, bit_string(bits)) for id, bits in sketches],
    )


def remove(connection: Connection, space_id: int, chunk_ids: Sequence[int]) -> None:
    """Delete the sketches of chunks, and begin a new epoch."""
    connection.execute(
        f"DELETE FROM sketches_{space_id} WHERE chunk_id = ANY(?)", (list(chunk_ids),)
    )
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
