"""The latents of a memory and the search in them, whichever database has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from clara_mlx.store.filters import Where
from clara_mlx.store.hadamard import Floats
from clara_mlx.store.latent_index import LatentIndex
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.opening import is_url
from clara_mlx.store.originals import Originals


class LatentSearch(Protocol):
    """The search in a table of latents, wherever its sketches are."""

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

    def centred_cosines(self, query: Floats, chunk_ids: Sequence[int]) -> dict[int, float | None]:
        """Cosines of query and chunks, see `LatentScores.centred_cosines`."""


def open_latents(
    store: Originals,
    fingerprint: str,
    shape: tuple[int, int],
    codec: str,
    *,
    compressor: str = "clara",
    pooling: str = "flat",
    beside: bool = False,
) -> tuple[LatentTable, LatentSearch]:
    """Open the table of a model's latents, or make it, with the search in it.

    Args:
        store: The memory's database.
        fingerprint: The model's fingerprint.
        shape: Vectors of one chunk's latents, and their length; see `LatentTable.open`.
        codec: How new latents are written, see `LatentTable.open`.
        compressor: The compressor's name.
        pooling: What a search compares, see `LatentTable.open`.
        beside: Make it beside the latents of another model, see `LatentTable.open`.

    Raises:
        OtherModel: The latents are another model's.
        ClaraError: There is no such codec.
    """
    new = fingerprint, *shape, codec
    if not is_url(store.path):
        table = LatentTable.open(store, *new, compressor=compressor, pooling=pooling, beside=beside)
        return table, LatentIndex(table)
    from clara_mlx.store.postgres.latent_index import PostgresLatentIndex
    from clara_mlx.store.postgres.latents import PostgresLatentTable

    theirs = PostgresLatentTable.open(
        store, *new, compressor=compressor, pooling=pooling, beside=beside
    )
    return theirs, PostgresLatentIndex(theirs)
