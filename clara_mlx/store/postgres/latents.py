"""The table of latents in a team's database: several models beside one another, others writing."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clara_mlx.store import filters
from clara_mlx.store.connection import Connection
from clara_mlx.store.filters import Where
from clara_mlx.store.hadamard import Floats
from clara_mlx.store.latents import BlobRow, LatentTable
from clara_mlx.store.postgres import sketch_indexing, sketches
from clara_mlx.store.postgres.database import PostgresDatabase
from clara_mlx.store.sketch import Sketcher
from clara_mlx.store.sketch_index import Ids

#: Sketches up to which a scan of them is fast enough, so that they have no index.
SCANNED = 20_000

# Latents whose sketches are made and written together.
_TOGETHER = 256


class PostgresLatentTable(LatentTable):
    """The latents of one model in a team's database; see `LatentTable`.

    Attributes:
        database: The database.
    """

    @property
    def database(self) -> PostgresDatabase:
        """The database."""
        assert isinstance(self.file, PostgresDatabase)
        return self.file

    # -- reading ---------------------------------------------------------------------------------

    def chunk_ids(self, allowed: Sequence[int] | None, where: Where) -> Ids:
        """The chunks that have latents, of those that are allowed and match a filter."""
        condition, parameters = "TRUE", list[Any]([self.id])
        if allowed is not None:
            condition, parameters = "l.chunk_id = ANY(?)", [self.id, list(allowed)]
        if where:
            wanted, values = filters.condition(where, self.file.dialect)
            condition += f" AND l.chunk_id IN (SELECT ch.id {filters.CHUNKS} WHERE {wanted})"
            parameters += values
        rows = self.file.read(
            f"SELECT l.chunk_id FROM latents l WHERE l.space_id = ? AND {condition} ORDER BY l.id",
            parameters,
        )
        return np.array([row[0] for row in rows], np.int64)

    def about_count(self) -> int:
        """About how many chunks have sketches, as PostgreSQL's statistics know it."""
        return sketch_indexing.about_count(self.database, self.id)

    def has_index(self) -> bool:
        """Whether the sketches have an index that can be used."""
        return sketch_indexing.has_index(self.database, self.id)

    # -- writing ---------------------------------------------------------------------------------

    def _insert(self, connection: Connection, rows: Sequence[BlobRow]) -> set[int]:
        """Insert the latents of chunks that exist and have none, all at once."""
        crcs = [zlib.crc32(blob) for _, blob, _ in rows]
        ids, blobs, digests = zip(*rows, strict=True) if rows else ((), (), ())
        added = connection.execute(
            "INSERT INTO latents (space_id, chunk_id, crc, data, digest) "
            "SELECT ?, ch.id, given.crc, given.data, given.digest "
            "FROM unnest(?::bigint[], ?::bigint[], ?::bytea[], ?::bytea[]) "
            "AS given (chunk_id, crc, data, digest) JOIN chunks ch ON ch.id = given.chunk_id "
            "ON CONFLICT DO NOTHING RETURNING chunk_id",
            (self.id, list(ids), crcs, list(blobs), list(digests)),
        ).fetchall()
        return {row[0] for row in added}

    def _recentre_if_due(self) -> None:
        """Remake all sketches if that is due, and index them once there are many."""
        super()._recentre_if_due()
        _, last = self.state()
        if last >= SCANNED and not self.has_index() and self.about_count() >= SCANNED:
            with sketch_indexing.remaking(self.database, self.id) as is_ours:
                if is_ours and not self.has_index():
                    sketch_indexing.index(self.database, self.id, self.about_count())

    def _recentre(self, mean: Floats, count: int) -> None:
        """Make new sketches beside the old ones, and their index, then put them in their place.

        Others write meanwhile, and wait only while what they have added is sketched again. One
        process at a time does this; another one that would leaves it to the first.
        """
        with sketch_indexing.remaking(self.database, self.id) as is_ours:
            if not is_ours:
                return
            sketcher = Sketcher(self._dims, self.sketch_bits, self._seed, mean)
            with self.file.write() as connection:
                sketches.create_new(connection, self.id, self.sketch_bits)
            for rows in self._sketch_missing(sketcher):
                with self.file.write() as connection:
                    sketches.add_new(connection, self.id, rows)
            if count >= SCANNED:
                sketch_indexing.index(self.database, self.id, count, of_new=True)
            with self.file.write(alone=True) as connection:
                for rows in self._sketch_missing(sketcher):  # of latents that were added since
                    sketches.add_new(connection, self.id, rows)
                sketches.put_new_in_place(connection, self.id)
                connection.execute(
                    "UPDATE spaces SET mean = ?, mean_count = ?, epoch = epoch + 1 WHERE id = ?",
                    (mean.astype("<f4").tobytes(), count, self.id),
                )

    def _sketch_missing(self, sketcher: Sketcher) -> Iterator[list[tuple[int, bytes]]]:
        """New sketches of the latents that have none yet, some at a time; damaged ones get none."""
        last = 0
        while True:
            rows = self.file.read(
                "SELECT l.id, l.chunk_id FROM latents l WHERE l.space_id = ? AND l.id > ? "
                f"AND NOT EXISTS (SELECT 1 FROM sketches_{self.id}_new n "
                "WHERE n.chunk_id = l.chunk_id) ORDER BY l.id LIMIT ?",
                (self.id, last, _TOGETHER),
            )
            if not rows:
                return
            last = rows[-1][0]
            ids, vectors = self._sound_vectors([row[1] for row in rows])
            made = sketcher.sketch(vectors)
            yield [(id, sketch.tobytes()) for id, sketch in zip(ids, made, strict=True)]
