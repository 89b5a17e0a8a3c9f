"""The search by latents in a team's database: candidates by the server, exact cosines here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clara_mlx.errors import StoreError
from clara_mlx.store import filters
from clara_mlx.store.filters import Where
from clara_mlx.store.hadamard import Floats
from clara_mlx.store.latent_index import LatentScores
from clara_mlx.store.postgres import latents
from clara_mlx.store.postgres.latents import PostgresLatentTable
from clara_mlx.store.postgres.near_sketches import Filter, OtherEpoch, ServerScan, Sketches
from clara_mlx.store.sketch_index import NearestFirst

logger = logging.getLogger(__name__)

# The share of all sketches up to which those that a filter allows are scanned; the index would look
# at most of its candidates in vain.
_SELECTIVE = 0.01

# Times that a search begins again because the sketches were remade meanwhile, which takes minutes.
_ATTEMPTS = 3


class PostgresLatentIndex(LatentScores):
    """Searches the latents of a table as `LatentIndex` does, but keeps nothing in memory."""

    def __init__(self, table: PostgresLatentTable) -> None:
        super().__init__(table)
        self._of = table

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
        """Chunk ids and cosines of the k best chunks for a query, see `LatentIndex.search`."""
        if exact:
            return self.search_all(query, k, self._of.chunk_ids(allowed, where))
        filter = self._filter(allowed, where)
        for _ in range(_ATTEMPTS):
            try:
                return self._search_near(query, k, filter, sure)
            except OtherEpoch:
                logger.debug("%s: the sketches were remade during a search", self._of.file.path)
        raise StoreError(f"{self._of.file.path}: the sketches are remade all the time; try again")

    def _search_near(
        self, query: Floats, k: int, allowed: Filter, sure: int | None
    ) -> list[tuple[int, float]]:
        """Score the chunks that their sketches choose, and no others."""
        epoch, sketcher = self._of.sketcher()
        sketched, rotated = self.sketch_query(sketcher, query)
        sketches = Sketches(self._of.database, self._of.id, self._of.sketch_bits, epoch)

        def read(number: int) -> list[tuple[int, int]]:
            if allowed.share > _SELECTIVE and self._of.has_index():
                found = sketches.follow(sketched.sketch, number, allowed)
                if len(found) == number:
                    return found
            return sketches.scan(sketched.sketch, number, allowed)

        nearest = NearestFirst(ServerScan(read, self._of.sketch_bits), sketched, k, sure=sure)
        while len(ids := nearest.next_ids()):
            nearest.add_scores(self.cosines(rotated, ids))
        ids, cosines = nearest.best()
        return list(zip(ids.tolist(), cosines.tolist(), strict=True))

    def _filter(self, allowed: Sequence[int] | None, where: Where) -> Filter:
        """A filter as the server applies it, with how much it lets through."""
        if allowed is not None:
            return Filter("s.chunk_id = ANY(?)", (list(allowed),), 0.0)
        if not where:
            return Filter()
        wanted, parameters = filters.condition(where, self._of.file.dialect)
        chunks = f"SELECT ch.id {filters.CHUNKS} WHERE {wanted}"
        number = self._of.about_count()
        few = max(latents.SCANNED, int(_SELECTIVE * number))
        ((count,),) = self._of.file.read(
            f"SELECT count(*) FROM (SELECT DISTINCT found.id FROM ({chunks}) AS found LIMIT ?) "
            "AS few",
            (*parameters, few + 1),
        )
        if count <= few:
            return Filter(f"s.chunk_id IN ({chunks})", parameters, 0.0)
        # Asked of each chunk that the index comes to, not joined with all of them.
        condition = f"(SELECT TRUE {filters.CHUNKS} WHERE ch.id = s.chunk_id AND {wanted} LIMIT 1)"
        return Filter(condition, parameters, min(1.0, count / max(1, number)))
