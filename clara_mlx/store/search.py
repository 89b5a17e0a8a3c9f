"""Search: candidates by latents and by words, fused, with the filters applied before the top k."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from clara_mlx.results import Hit
from clara_mlx.store import filters, words
from clara_mlx.store.store import Gone, Store, StoredChunk, StoredMemory, memory_of

if TYPE_CHECKING:
    import numpy as np

    from clara_mlx.store.space import Space

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
    all latents share, is there whenever the chunk has latents and a query was encoded.
    """
    by_latent: dict[int, float] = {}
    by_text: dict[int, float] = {}
    depth = (k if encoded is None or query is None else _DEPTH * k) + _SPARE
    if encoded is not None and space is not None:
        allowed = _allowed(store, where) if where else None
        by_latent = dict(space.search(encoded, depth, allowed, exact=exact))
    if query is not None:
        by_text = dict(_by_words(store, query, depth, where))
    if encoded is None or query is None:
        ranked = sorted((by_latent or by_text).items(), key=lambda item: -item[1])
    else:
        ranked = _fused(by_latent, by_text)
    ranked = ranked[: k + _SPARE]
    centred: dict[int, float] = {}
    if encoded is not None and space is not None:
        centred = space.centred(encoded, [id for id, _ in ranked])
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


def _by_words(
    store: Store, query: str, k: int, where: Mapping[str, Any] | None
) -> list[tuple[int, float]]:
    match = words.query(query)
    if match is None:
        return []
    wanted, parameters = "", list[Any]()
    if where:
        condition, parameters = filters.condition(where)
        # With the +, FTS5 matches once and then filters; without it, once for each allowed row.
        wanted = f"AND +rowid IN (SELECT ch.id {_JOIN} WHERE {condition})"
    # The parts of identifiers count less than the words as they are written.
    rows = store.read(
        "SELECT rowid, bm25(chunk_text, 1.0, 0.5) AS score FROM chunk_text "
        f"WHERE chunk_text MATCH ? {wanted} ORDER BY score, rowid LIMIT ?",
        [match, *parameters, k],
    )
    return [(row["rowid"], -row["score"]) for row in rows]


_JOIN = "FROM chunks ch JOIN memories m ON m.content_id = ch.content_id"


def _allowed(store: Store, where: Mapping[str, Any]) -> list[int]:
    """Ids of all chunks of memories that match."""
    condition, parameters = filters.condition(where)
    rows = store.read(f"SELECT DISTINCT ch.id {_JOIN} WHERE {condition}", parameters)
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
