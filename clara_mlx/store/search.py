"""Search: chunks found by latents and by words, fused, with filters applied before the top k."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from clara_mlx.store import filters, fulltext
from clara_mlx.store.calibration import UNMEASURED, Calibration
from clara_mlx.store.filters import Where
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import SEARCH_SECONDS
from clara_mlx.store.results import Hit
from clara_mlx.store.stored import Gone

if TYPE_CHECKING:  # numpy is not needed for a search by words
    from clara_mlx.store.hadamard import Floats
    from clara_mlx.store.latent_search import LatentSearch

logger = logging.getLogger(__name__)

# Results looked for beyond k, in case some are forgotten before they are read.
_SPARE = 5

# Characters of a hit's best line that it repeats.
_MATCHED_CHARACTERS = 300

# Each of the two searches gives this multiple of k to the fusion.
_DEPTH = 3


def search(
    store: Originals,
    index: LatentSearch | None,
    encoded: Floats | None,
    query: str | None,
    k: int,
    where: Where,
    *,
    exact: bool = False,
    calibration: Calibration | None = None,
) -> list[Hit]:
    """The k best chunks for a query by latents, by words, or by both fused.

    Fused, the words lead as far as they are found, and latents as far as their cosines are above
    what they are for anything. So neither search makes the other worse where it knows nothing:
    words that are nowhere, or a model that was never taught such texts.

    Chunks whose latents are damaged are found by their words only; the log names them.

    Args:
        store: The store.
        index: The index of its latents; needed if ``encoded`` is given.
        encoded: The encoded query (memory_tokens, hidden); latents are not searched without it.
        query: The words of the query; words are not searched without it.
        k: Number of results; fewer only if fewer chunks match.
        where: A filter, see `filters.condition`.
        exact: Compare with all latents instead of those that the sketches choose.
        calibration: What cosines are for anything; `UNMEASURED` without it.

    Returns:
        Hits, the best first. Their score is from 0 to 1, about the share of the query that was
        found; by latents alone it is the cosine.
    """
    began = time.perf_counter()
    store.settle(SEARCH_SECONDS)
    by_latent: dict[int, float] = {}
    by_text: dict[int, float] = {}
    by_words = None if query is None else fulltext.TextSearch(store, query)
    depth = (k if encoded is None or query is None else _DEPTH * k) + _SPARE
    if encoded is not None and index is not None:
        by_latent = dict(index.search(encoded, depth, where=where, sure=k, exact=exact))
    if by_words is not None:
        by_text = dict(by_words.search(depth, where))
    ranked = sorted((by_latent or by_text).items(), key=lambda item: -item[1])
    if encoded is None or query is None:
        ranked = ranked[: k + _SPARE]
    else:
        ranked = [(id, 0.0) for id in dict.fromkeys([*by_latent, *by_text])]
    centred: dict[int, float | None] = {}
    if encoded is not None and index is not None:
        centred = index.centred_cosines(encoded, [id for id, _ in ranked])
        damaged = [id for id, cosine in centred.items() if cosine is None]
        if damaged:
            by_latent = {id: score for id, score in by_latent.items() if id not in damaged}
            ranked = [(id, score) for id, score in ranked if id in by_latent or id in by_text]
            logger.warning(
                "%s: the latents of chunks %s are damaged and were left out; `clara-mlx verify "
                "--repair` compresses them again from the originals",
                store.path,
                damaged,
            )
    if encoded is not None and query is not None:
        fused = _fuse([id for id, _ in ranked], by_text, centred, calibration or UNMEASURED)
        ranked = fused[: k + _SPARE]
    found_by = {"latent": by_latent, "text": by_text}
    hits = list(islice(_read_hits(store, ranked, where, centred, found_by, by_words), k))
    logger.debug(
        "%s: searched in %.0f ms: by latents %d, by words %d, given %d",
        store.path,
        (time.perf_counter() - began) * 1e3,
        len(by_latent),
        len(by_text),
        len(hits),
    )
    if not hits:
        for key, meant in filters.mistyped(where):
            logger.warning(
                "%s: nothing found with %r, which is looked up in the metadata; is %r meant?",
                store.path,
                key,
                meant,
            )
    return hits


def _read_hits(
    store: Originals,
    ranked: list[tuple[int, float]],
    where: Where,
    centred: dict[int, float | None],
    found_by: dict[str, dict[int, float]],
    by_words: fulltext.TextSearch | None,
) -> Iterator[Hit]:
    """The hits of ranked chunks, without those that were forgotten since."""
    chunks = store.chunks_by_id([id for id, _ in ranked])
    for id, score in ranked:
        if id not in chunks:
            continue
        chunk = chunks[id]
        memory = store.latest_memory(chunk.content_id, where)
        if memory is None:
            continue
        with suppress(Gone):
            text = (by_words or store).text(chunk.content_id)
            best = by_words.best_line(text, chunk.start, chunk.end) if by_words else None
            yield Hit(
                handle=memory.handle,
                score=score,
                cosine=centred.get(id),
                found_by=tuple(way for way, found in found_by.items() if id in found),
                text=text[chunk.start : chunk.end],
                start=chunk.start,
                end=chunk.end,
                line=text.count("\n", 0, chunk.start) + 1,
                source=memory.source,
                session=memory.session,
                created_at=memory.created_at,
                metadata=memory.metadata,
                chunk_id=id,
                matched_line=best.number if best else None,
                share=found_by["text"].get(id),
                matched=best.text[:_MATCHED_CHARACTERS] if best else "",
            )


def _fuse(
    ids: Sequence[int],
    by_text: Mapping[int, float],
    centred: Mapping[int, float | None],
    calibration: Calibration,
) -> list[tuple[int, float]]:
    """Chunk ids and the scores of both searches together, the best first.

    What one search finds lowers what is left for the other to find; equal ones are in the order of
    their cosines.
    """
    scores = {
        id: 1 - (1 - by_text.get(id, 0.0)) * (1 - calibration.weigh(centred.get(id))) for id in ids
    }

    def order(id: int) -> tuple[float, float, int]:
        cosine = centred.get(id)
        return -scores[id], 1.0 if cosine is None else -cosine, id

    return [(id, scores[id]) for id in sorted(scores, key=order)]
