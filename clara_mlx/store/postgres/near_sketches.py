"""The chunks near a query by their sketches, as the server finds them.

There are two ways. A scan compares all sketches that a filter allows, and is exact. The HNSW index
follows the sketches' neighbours, so that its time hardly grows with their number, but it may miss
some: the more candidates it is asked for, the fewer. It is used where a scan would take too long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from clara_mlx.store.postgres import sketch_indexing
from clara_mlx.store.postgres.database import PostgresDatabase
from clara_mlx.store.postgres.sketches import bit_string
from clara_mlx.store.sketch import Bits
from clara_mlx.store.sketch_index import Ids, Rows

# Candidates that are asked for at first. The index looks at about as many sketches
# (hnsw.ef_search), so this also says how few near ones it misses.
_FIRST = 400

# Each further time, this many times as many.
_FACTOR = 4

# The most candidates: more of them are near queries only that are near nothing.
_MOST = 6_400

# The most sketches that the index looks at before it goes on step by step: pgvector's limit.
_MOST_AT_ONCE = 1_000

# Sketches that the index looks at in all, for each candidate that a filter lets through.
_LOOKED_AT = 4

# The fewest of those: pgvector's own default.
_LEAST_LOOKED_AT = 20_000


# Neighbours of a sketch that a check of the index compares, and the share that it has to find.
_COMPARED = 50
_LEAST_AGREEMENT = 0.8


@dataclass(frozen=True)
class Filter:
    """Which chunks may be found.

    Attributes:
        condition: SQL about ``s.chunk_id``.
        parameters: Its parameters.
        share: About which share of all sketches that is.
    """

    condition: str = "TRUE"
    parameters: Sequence[Any] = ()
    share: float = 1.0


class OtherEpoch(Exception):
    """The sketches were remade, so that the query has to be sketched again."""


@dataclass(frozen=True)
class Sketches:
    """The table of a space's sketches, as one search sees it.

    Attributes:
        database: The database.
        space_id: The space.
        bits: Length of a sketch.
        epoch: The epoch of the sketch that is looked for.
    """

    database: PostgresDatabase
    space_id: int
    bits: int
    epoch: int

    def scan(self, sketch: Bits, number: int, allowed: Filter) -> list[tuple[int, int]]:
        """The nearest chunks and their distances, from all that are allowed.

        Raises:
            OtherEpoch: The sketches are of another epoch.
        """
        # A sum is in no index.
        return self._read(sketch, number, allowed, "(s.bits <~> ?::bit varying) + 0", {})

    def follow(self, sketch: Bits, number: int, allowed: Filter) -> list[tuple[int, int]]:
        """Near chunks and their distances, from the index; fewer than ``number`` if it has no more.

        Raises:
            OtherEpoch: The sketches are of another epoch.
        """
        looked_at = max(_LEAST_LOOKED_AT, int(_LOOKED_AT * number / max(allowed.share, 1e-6)))
        settings = {
            "hnsw.ef_search": min(number, _MOST_AT_ONCE),
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": looked_at,
        }
        order = f"s.bits <~> ?::bit({self.bits})"
        return sorted(self._read(sketch, number, allowed, order, settings), key=lambda one: one[1])

    def _read(
        self,
        sketch: Bits,
        number: int,
        allowed: Filter,
        order: str,
        settings: dict[str, Any],
    ) -> list[tuple[int, int]]:
        bits = bit_string(sketch.tobytes())
        with self.database.reading(settings) as connection:
            # In one statement, so that both are of the same moment.
            rows = connection.execute(
                "SELECT near.chunk_id, near.distance, spaces.epoch FROM spaces LEFT JOIN ("
                f"SELECT s.chunk_id, (s.bits <~> ?::bit varying)::int AS distance "
                f"FROM sketches_{self.space_id} s WHERE {allowed.condition} "
                f"ORDER BY {order} LIMIT ?) AS near ON TRUE WHERE spaces.id = ?",
                (bits, *allowed.parameters, bits, number, self.space_id),
            ).fetchall()
        if not rows or rows[0]["epoch"] != self.epoch:
            raise OtherEpoch
        return [(row[0], row[1]) for row in rows if row[0] is not None]


def missed(database: PostgresDatabase, space_id: int, number: int) -> tuple[list[int], int]:
    """Of a sample of sketches, the chunks of those whose neighbours the index does not find.

    Wrong neighbours have been reported of such indexes (pgvector's issue 972). The index is asked
    for each sketch of the sample, and a scan for the distances that it should give.

    Returns:
        The chunks, and the size of the sample; 0 if there is no index.
    """
    rows = database.read("SELECT sketch_bits, epoch FROM spaces WHERE id = ?", (space_id,))
    if not rows or not sketch_indexing.has_index(database, space_id):
        return [], 0
    sketches = Sketches(database, space_id, *rows[0])
    sample = sketch_indexing.sample(database, space_id, number)
    found = []
    for id, sketch in sample:
        with suppress(OtherEpoch):
            by_index = sketches.follow(sketch, _COMPARED, Filter())
            by_scan = sketches.scan(sketch, _COMPARED, Filter())
            agreed = sum(distance <= by_scan[-1][1] for _, distance in by_index)
            # That of the sketch itself comes first; a few of the others may be missing.
            is_first = by_index[:1] and by_index[0][1] == by_scan[0][1]
            if not is_first or agreed < _LEAST_AGREEMENT * len(by_scan):
                found.append(id)
    return found, len(sample)


class ServerScan:
    """The sketches near one query, read as far as they are needed; see `sketch_index.Nearest`.

    Args:
        read: Gives so many near chunks with their distances, the nearest first; fewer only if there
            are no more.
        bits: Length of a sketch.
    """

    def __init__(self, read: Callable[[int], list[tuple[int, int]]], bits: int) -> None:
        self.bits = bits
        self._read = read
        self._asked = 0
        self._is_all = False
        self._rows: dict[int, int] = {}  # by chunk
        self._distances: list[int] = []  # in the order of the rows
        self._farthest = 0

    @property
    def ids(self) -> Ids:
        """The chunks (n,) of all rows."""
        return np.fromiter(self._rows, np.int64, len(self._rows))

    def near(self, k: int) -> Rows:
        """k near rows, the nearest first; fewer only if fewer are allowed."""
        self._ask_for(max(_FIRST, _FACTOR * k))
        return self._within(self.bits)[:k]

    def within(self, radius: float) -> Rows:
        """The rows that are at most ``radius`` away, the nearest first; at most about `_MOST`."""
        while not self._is_all and self._farthest <= radius and self._asked < _MOST:
            self._ask_for(_FACTOR * self._asked)
        return self._within(radius)

    def _ask_for(self, number: int) -> None:
        found = self._read(number)
        self._asked = number
        self._is_all = len(found) < number
        for id, distance in found:
            if id not in self._rows:
                self._rows[id] = len(self._rows)
                self._distances.append(distance)
        self._farthest = max((distance for _, distance in found), default=self.bits)

    def _within(self, radius: float) -> Rows:
        distances = np.array(self._distances, np.int64)
        rows = np.flatnonzero(distances <= radius)
        return rows[np.argsort(distances[rows], kind="stable")]
