"""Search: candidates by latents and by words, fused, with the filters applied before the top k."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from clara_mlx.store import filters, fulltext
from clara_mlx.store.results import Hit
from clara_mlx.store.store import Gone, Store, StoredChunk, StoredMemory, memory_of

if TYPE_CHECKING:
    import numpy as np

    from clara_mlx.store.space import Space

_LOG = logging.getLogger(__name__)

#: Reciprocal rank fusion: a hit of rank r counts 1 / (RRF + r) (Cormack et al., 2009).
RRF = 60

# Found beyond k, in case some were forgotten since.
_SPARE = 5

# Each of the two searches gives so many times k to the fusion.
_DEPTH = 3


def search(
    store: Store,
    space: Space | None,
    encoded: np.ndarray[Any, Any] | None,
    query: str | None,
    k: int,
    where: Mapping[str, Any] | None,
    *,
    exact: bool = False,
) -> list[Hit]:
    """The k best chunks by an encoded query (M, hidden), by words, or by both fused.

    The score is the cosine, the negated BM25, or the fused reciprocal ranks; ``cosine``, less what
    all latents share, is there whenever the chunk has latents and a query was encoded. Chunks whose
    latents are damaged are found by their words only; the log says which.
    """
    by_latent: dict[int, float] = {}
    by_text: dict[int, float] = {}
    depth = (k if encoded is None or query is None else _DEPTH * k) + _SPARE
    if encoded is not None and space is not None:
        allowed = _allowed(store, where) if where else None
        by_latent = dict(space.search(encoded, depth, allowed, sure=k, exact=exact))
    if query is not None:
        by_text = dict(fulltext.search(store, query, depth, where))
    if encoded is None or query is None:
        ranked = sorted((by_latent or by_text).items(), key=lambda item: -item[1])
    else:
        ranked = _fused(by_latent, by_text)
    ranked = ranked[: k + _SPARE]
    centred: dict[int, float | None] = {}
    if encoded is not None and space is not None:
        centred = space.centred(encoded, [id for id, _ in ranked])
        damaged = [id for id, cosine in centred.items() if cosine is None]
        if damaged:
            by_latent = {id: score for id, score in by_latent.items() if id not in damaged}
            ranked = [(id, score) for id, score in ranked if id in by_latent or id in by_text]
            _LOG.warning(
                "%s: the latents of chunks %s are damaged and were left out; `clara-mlx verify "
                "--repair` has them made again from the originals",
                store.path,
                damaged,
            )
    chunks = store.chunk([id for id, _ in ranked])
    found: list[Hit] = []
    for id, score in ranked:
        if len(found) == k:
            break
        if id not in chunks:  # forgotten meanwhile
            continue
        memory = _latest_memory(store, chunks[id].content_id, where)
        if memory is None:
            continue
        ways = [way for way, ids in (("latent", by_latent), ("text", by_text)) if id in ids]
        with suppress(Gone):
            found.append(_hit(store, chunks[id], memory, score, centred.get(id), tuple(ways)))
    return found


def _hit(
    store: Store,
    chunk: StoredChunk,
    memory: StoredMemory,
    score: float,
    cosine: float | None,
    found_by: tuple[str, ...],
) -> Hit:
    text = store.text(chunk.content_id)
    return Hit(
        handle=memory.handle,
        score=score,
        cosine=cosine,
        found_by=found_by,
        text=text[chunk.start : chunk.end],
        start=chunk.start,
        end=chunk.end,
        line=text.count("\n", 0, chunk.start) + 1,
        source=memory.source,
        session=memory.session,
        created_at=memory.created_at,
        metadata=memory.metadata,
        chunk_id=chunk.id,
    )


def _fused(by_latent: dict[int, float], by_text: dict[int, float]) -> list[tuple[int, float]]:
    scores: dict[int, float] = {}
    for ranking in (by_latent, by_text):
        for rank, id in enumerate(sorted(ranking, key=lambda id: -ranking[id]), 1):
            scores[id] = scores.get(id, 0.0) + 1 / (RRF + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _allowed(store: Store, where: Mapping[str, Any]) -> list[int]:
    """Ids of all chunks of memories that match."""
    condition, parameters = filters.condition(where)
    rows = store.read(f"SELECT DISTINCT ch.id {fulltext.CHUNKS} WHERE {condition}", parameters)
    return [row[0] for row in rows]


def _latest_memory(
    store: Store, content_id: int, where: Mapping[str, Any] | None
) -> StoredMemory | None:
    condition, parameters = filters.condition(where)
    rows = store.read(
        "SELECT m.*, c.kind, c.length FROM memories m JOIN contents c ON c.id = m.content_id "
        f"WHERE m.content_id = ? AND {condition} ORDER BY m.id DESC LIMIT 1",
        [content_id, *parameters],
    )
    return memory_of(rows[0]) if rows else None
