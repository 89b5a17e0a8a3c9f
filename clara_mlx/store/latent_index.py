"""The search by latents: near sketches in memory first, then exact cosines from the blobs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from clara_mlx.errors import StoreError
from clara_mlx.store import filters, sketch_table
from clara_mlx.store.filters import Where
from clara_mlx.store.hadamard import Floats
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.sketch import SketchedQuery, Sketcher
from clara_mlx.store.sketch_index import Ids, Mask, NearestFirst, Scan, SketchIndex

# Blobs read and scored at a time by an exact search: bounds the memory.
_EXACT_BATCH = 256


class LatentScores:
    """Exact cosines of queries and chunks, from the blobs of a table."""

    def __init__(self, table: LatentTable) -> None:
        self._table = table

    def search_all(self, query: Floats, k: int, candidates: Ids) -> list[tuple[int, float]]:
        """Ids and cosines of the k best of the candidates, all of which are scored."""
        rotated = self._table.codec.rotate_queries(query)
        scores = np.full(len(candidates), -np.inf, np.float32)
        for start in range(0, len(candidates), _EXACT_BATCH):
            batch = slice(start, start + _EXACT_BATCH)
            scores[batch] = self.cosines(rotated, candidates[batch])[0]
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[scores[best] > -np.inf]
        return [(int(candidates[i]), float(scores[i])) for i in best]

    def centred_cosines(self, query: Floats, chunk_ids: Sequence[int]) -> dict[int, float | None]:
        """Cosines of query and chunks less what all latents share; None for damaged latents.

        Chunks without latents are left out. This is meant for the chunks that a search has found:
        the search itself doesn't check for damage, which takes longer than scoring.
        """
        blobs = self._table.checked_blobs(chunk_ids)
        found: dict[int, float | None] = dict.fromkeys(blobs)
        sound = {id: blob for id, blob in blobs.items() if blob is not None}
        if sound:
            _, sketcher = self._table.sketcher()
            sketched, rotated = self.sketch_query(sketcher, query)
            cosines = sketched.centred(self._table.codec.scores(rotated, list(sound.values())))
            found.update(zip(sound, cosines.tolist(), strict=True))
        return found

    def cosines(self, rotated: Floats, chunk_ids: Ids) -> Floats:
        """Cosines (queries, n) of rotated queries and chunks; -inf for chunks without latents."""
        blobs = self._table.blobs(chunk_ids.tolist())
        scores = np.full((len(rotated), len(chunk_ids)), -np.inf, np.float32)
        place = {id: i for i, id in enumerate(chunk_ids.tolist())}
        scores[:, [place[id] for id in blobs]] = self._table.codec.scores(
            rotated, list(blobs.values())
        )
        return scores

    def sketch_query(self, sketcher: Sketcher, query: Floats) -> tuple[SketchedQuery, Floats]:
        """The forms of a query that the sketches and the blobs are compared with."""
        sketched = sketcher.sketch_query(query.reshape(-1).astype(np.float32))
        vectors = sketched.vectors.reshape(-1, *self._table.shape)
        return sketched, self._table.codec.rotate_queries(vectors)


class LatentIndex(LatentScores):
    """Searches the latents of a table; keeps their sketches in memory, up to date with the file."""

    def __init__(self, table: LatentTable) -> None:
        super().__init__(table)
        self._lock = threading.Lock()
        # What has been read of the file: the epoch of the sketches and the last latent among them.
        self._epoch = -1
        self._last = 0
        self._sketcher = Sketcher(1)
        self._index = SketchIndex(8)

    def search(
        self,
        query: Floats,
        k: int,
        allowed: Sequence[int] | None = None,
        *,
        where: Where = None,
        sure: int | None = None,
        exact: bool = False,
    ) -> list[tuple[int, float]]:
        """Chunk ids and cosines of the k best chunks for a query.

        Args:
            query: An encoded question, (memory_tokens, hidden).
            k: Number of results; fewer only if fewer chunks are allowed.
            allowed: Ids of the chunks that may be found; all without it.
            where: A filter of their memories, besides.
            sure: Guarantee only this many of the results, see `NearestFirst`.
            exact: Score every allowed chunk.

        Raises:
            StoreError: The sketches are damaged.
            OtherModel: Another process has moved the file to another model.
        """
        if where:
            matching = self._matching(where)
            allowed = matching if allowed is None else [*{*allowed} & {*matching}]
        with self._lock:
            self._read_new_sketches()
            ids = self._index.ids
            mask = None if allowed is None else np.isin(ids, np.asarray(allowed, np.int64))
            if not exact:
                return self._search_near(query, k, mask, sure)
        return self.search_all(query, k, ids if mask is None else ids[mask])

    def _matching(self, where: Where) -> list[int]:
        """The chunks whose memories match a filter."""
        condition, parameters = filters.condition(where, self._table.file.dialect)
        sql = f"SELECT DISTINCT ch.id {filters.CHUNKS} WHERE {condition}"
        return [row[0] for row in self._table.file.read(sql, parameters)]

    def _search_near(
        self, query: Floats, k: int, mask: Mask | None, sure: int | None
    ) -> list[tuple[int, float]]:
        """Score the chunks that their sketches choose, and no others."""
        sketched, rotated = self.sketch_query(self._sketcher, query)
        scan = Scan(self._index, sketched.sketch, mask)
        nearest = NearestFirst(scan, sketched, k, sure=sure)
        while len(ids := nearest.next_ids()):
            nearest.add_scores(self.cosines(rotated, ids))
        ids, cosines = nearest.best()
        return list(zip(ids.tolist(), cosines.tolist(), strict=True))

    def _read_new_sketches(self) -> None:
        """Read the sketches added since the last search; all of them if any were removed."""
        table = self._table
        # Nearly always nothing has changed, and these two numbers are all that is read.
        if table.state() == (self._epoch, self._last):
            return
        with table.file.snapshot() as connection:  # sketches of two epochs must not mix
            _, last = table.state()
            epoch, sketcher = table.sketcher()
            if epoch != self._epoch:
                self._epoch, self._last = epoch, 0
                self._sketcher, self._index = sketcher, SketchIndex(table.sketch_bits)
            new = sketch_table.read_new(connection, table.id, table.sketch_bits, self._last)
            if new is None:
                raise StoreError(
                    f"{table.file.path}: the sketches are damaged; "
                    "`clara-mlx verify --repair` remakes them"
                )
            self._index.extend(*new)
            self._last = last
