"""The indexes of sketches by Hamming distance, pgvector's HNSW: made, and what is known of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np

from clara_mlx.store.postgres import sketches
from clara_mlx.store.postgres.database import PostgresDatabase
from clara_mlx.store.sketch import Bits

logger = logging.getLogger(__name__)

# Neighbours of each sketch in the index, and candidates for them when it is built.
_NEIGHBOURS = 16
_CANDIDATES = 64

# Bytes of memory to build an index in, for each bit of a sketch and for each sketch beside that;
# with less, building takes many times as long. No more than `_MOST_MEMORY` are asked for.
_MEMORY_PER_SKETCH = 1_024
_MOST_MEMORY = 4 << 30

# Sketches that a sample is drawn from, for each one of it.
_DRAWN_FROM = 8


@contextmanager
def remaking(database: PostgresDatabase, space_id: int) -> Iterator[bool]:
    """Keep other processes from remaking or indexing the same sketches; false if one does it."""
    lock = "(hashtext('clara_mlx sketches ' || current_schema()), ?)"
    with database.outside() as connection:
        ((is_ours,),) = connection.execute(
            f"SELECT pg_try_advisory_lock{lock}", (space_id,)
        ).fetchall()
        try:
            yield is_ours
        finally:
            if is_ours:
                connection.execute(f"SELECT pg_advisory_unlock{lock}", (space_id,))


def index(database: PostgresDatabase, space_id: int, count: int, *, of_new: bool = False) -> None:
    """Index about ``count`` sketches; others write meanwhile. One that failed is made again."""
    table = f"sketches_{space_id}" + "_new" * of_new
    began = perf_counter()
    with database.outside() as connection:
        ((bits,),) = connection.execute(
            "SELECT sketch_bits FROM spaces WHERE id = ?", (space_id,)
        ).fetchall()
        memory = min(_MOST_MEMORY, (64 << 20) + count * (bits // 8 + _MEMORY_PER_SKETCH))
        settings = {"maintenance_work_mem": f"{memory >> 10}kB", "lock_timeout": "0"}
        for name, value in settings.items():
            connection.execute(f"SET {name} = '{value}'")
        try:
            connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {table}_near")
            connection.execute(
                f"CREATE INDEX CONCURRENTLY {table}_near ON {table} "
                "USING hnsw (bits bit_hamming_ops) "
                f"WITH (m = {_NEIGHBOURS}, ef_construction = {_CANDIDATES})"
            )
            connection.execute(f"ANALYZE {table}")
        finally:
            for name in settings:
                connection.execute(f"RESET {name}")
    logger.info(
        "%s: the sketches of space %d are indexed, in %.0f s",
        database.path,
        space_id,
        perf_counter() - began,
    )


# -- what there is -------------------------------------------------------------------------------


def has_index(database: PostgresDatabase, space_id: int) -> bool:
    """Whether the sketches have an index that can be used."""
    rows = database.read(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(?)",
        (f"sketches_{space_id}_near",),
    )
    return bool(rows and rows[0][0])


def about_count(database: PostgresDatabase, space_id: int) -> int:
    """About how many sketches there are; exactly if PostgreSQL has not estimated it yet."""
    table = f"sketches_{space_id}"
    rows = database.read("SELECT reltuples FROM pg_class WHERE oid = to_regclass(?)", (table,))
    if rows and rows[0][0] > 0:
        return int(rows[0][0])
    return int(database.read(f"SELECT count(*) FROM {table}")[0][0])


def sample(database: PostgresDatabase, space_id: int, number: int) -> list[tuple[int, Bits]]:
    """Some chunks, up to a number, and their sketches (bits / 8,)."""
    table = f"sketches_{space_id}"
    share = min(100.0, 100 * _DRAWN_FROM * number / max(1, about_count(database, space_id)))
    rows = database.read(
        f"SELECT chunk_id FROM {table} TABLESAMPLE BERNOULLI ({share:.9f}) "
        "ORDER BY random() LIMIT ?",
        (number,),
    )
    found = sketches.read(database, space_id, [row[0] for row in rows])
    return [(id, np.frombuffer(bits, np.uint8)) for id, bits in found.items()]
