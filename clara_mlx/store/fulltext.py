"""Search by words: BM25 among the chunks that have a query's rare words.

BM25 of all chunks that have any word of a query takes longest for the words that say least: FTS5
visits every chunk that has one of them. So, with the words in the order of how many chunks have
them, the rarest first:

- candidates are the chunks with any of the rarest words, as many words as `CANDIDATES` chunks
  allow; if those are fewer than k, also the chunks with both of the next two words; then those
  with the next word alone; then all;
- they are ranked by the BM25 of all words, but for the commonest ones beyond `POSTINGS` in sum.

Identical to ranking everything where a query's words have fewer chunks than `CANDIDATES`; what it
changes beyond that is measured by bench/words.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clara_mlx.store import filters, words
from clara_mlx.store.store import Store

#: Chunks that words may have in sum to choose the candidates, and to count in their ranking.
CANDIDATES, POSTINGS = 5_000, 250_000

#: Chunks of memories, for filters on memories ``m``.
CHUNKS = "FROM chunks ch JOIN memories m ON m.content_id = ch.content_id"


def search(
    store: Store, query: str, k: int, where: Mapping[str, Any] | None = None
) -> list[tuple[int, float]]:
    """Chunk ids and scores (negated BM25) of the k best chunks that have a word of a query."""
    terms, counted = _rarest_first(store, words.terms(query))
    found: list[tuple[int, float]] = []
    for candidates, ranked_by in _plans(terms, counted, k):
        found = _ranked(store, " OR ".join(ranked_by), candidates, k, where)
        if len(found) == k:
            break
    return found


def _rarest_first(store: Store, terms: Sequence[str]) -> tuple[list[str], list[float]]:
    """Terms of an FTS5 query and how many chunks have them: of common ones, a guess."""
    if len(terms) < 2:
        return list(terms), [0.0] * len(terms)
    ((last,),) = store.read("SELECT max(id) FROM chunks")
    counts = {}
    for term in terms:
        ((count, reached),) = store.read(
            "SELECT count(*), max(rowid) FROM "
            "(SELECT rowid FROM chunk_text WHERE chunk_text MATCH ? LIMIT ?)",
            (term, CANDIDATES + 1),
        )
        counts[term] = count * last / reached if count > CANDIDATES else count
    order = sorted(terms, key=lambda term: counts[term])
    return order, [counts[term] for term in order]


def _plans(
    terms: Sequence[str], counts: Sequence[float], k: int
) -> Iterator[tuple[str | None, Sequence[str]]]:
    """What candidates must match (None: any term) and the terms that rank them, wider each time."""
    number = _within(counts, CANDIDATES)
    rare, common = terms[:number], terms[number:]
    ranking = terms[: max(number + 2, _within(counts, POSTINGS))]
    if common:
        if sum(counts[:number]) >= k:
            yield " OR ".join(rare), ranking
        if common[1:]:
            yield " OR ".join([*rare, f"({common[0]} AND {common[1]})"]), ranking
            yield " OR ".join([*rare, common[0]]), ranking
    if terms:
        yield None, terms


def _within(counts: Sequence[float], most: float) -> int:
    """How many of the first counts are no more than that in sum."""
    number = 0
    for count in counts:
        most -= count
        if most < 0:
            break
        number += 1
    return number


def _ranked(
    store: Store, match: str, candidates: str | None, k: int, where: Mapping[str, Any] | None
) -> list[tuple[int, float]]:
    conditions, parameters = "", list[Any]()
    # With the +, FTS5 matches once and then filters; without it, once for each allowed row.
    if candidates is not None:
        conditions += " AND +rowid IN (SELECT rowid FROM chunk_text WHERE chunk_text MATCH ?)"
        parameters.append(candidates)
    if where:
        condition, values = filters.condition(where)
        conditions += f" AND +rowid IN (SELECT ch.id {CHUNKS} WHERE {condition})"
        parameters += values
    # The parts of identifiers count less than the words as they are written.
    rows = store.read(
        "SELECT rowid, bm25(chunk_text, 1.0, 0.5) AS score FROM chunk_text "
        f"WHERE chunk_text MATCH ?{conditions} ORDER BY score, rowid LIMIT ?",
        [match, *parameters, k],
    )
    return [(row[0], -row[1]) for row in rows]
