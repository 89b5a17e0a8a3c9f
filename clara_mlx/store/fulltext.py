"""Search by words: BM25 among the chunks that have a query's rare words.

If all chunks that have any word of a query were ranked, the words that say least would take
longest, because FTS5 visits every chunk that has one of them. So the words are sorted by the number
of chunks that have them, the rarest first:

- Candidates are the chunks with any of the rarest words: as many words as add up to `CANDIDATES`
  chunks. If that gives fewer than k results, the chunks with both of the next two words are added,
  then those with the next word alone, then all.
- They are ranked by the BM25 of as many words, the rarest first, as add up to `POSTINGS` chunks;
  the commonest ones beyond that are left out.

The result is identical to ranking everything if the words of a query have fewer chunks than
`CANDIDATES`; bench/words.py measures the difference where they have more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from clara_mlx.store import filters, words
from clara_mlx.store.store import Store

#: Chunks that the words which choose the candidates may have, added up.
CANDIDATES = 5_000

#: Chunks that the words which rank the candidates may have, added up.
POSTINGS = 250_000

#: Chunks of memories, for filters on memories ``m``.
CHUNKS = "FROM chunks ch JOIN memories m ON m.content_id = ch.content_id"


def search(
    store: Store, query: str, k: int, where: Mapping[str, Any] | None = None
) -> list[tuple[int, float]]:
    """Chunk ids and scores (negated BM25) of the k best chunks that have a word of a query."""
    terms, counted = _rarest_first(store, words.terms(query))
    found: list[tuple[int, float]] = []
    for candidates, ranked_by in _plans(terms, counted, k):
        found = _rank(store, " OR ".join(ranked_by), candidates, k, where)
        if len(found) == k:
            break
    return found


def _rarest_first(store: Store, terms: Sequence[str]) -> tuple[list[str], list[float]]:
    """Terms sorted by the number of chunks that have them, and those numbers, some estimated."""
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
    """From few candidates to all: the query that they must match, if any, and the ranking terms."""
    sums = list(accumulate(counts))
    number = bisect_right(sums, CANDIDATES)
    rare, common = terms[:number], terms[number:]
    ranking = terms[: max(number + 2, bisect_right(sums, POSTINGS))]
    if common:
        if rare and sums[number - 1] >= k:
            yield " OR ".join(rare), ranking
        if common[1:]:
            yield " OR ".join([*rare, f"({common[0]} AND {common[1]})"]), ranking
            yield " OR ".join([*rare, common[0]]), ranking
    if terms:
        yield None, terms


def _rank(
    store: Store, match: str, candidates: str | None, k: int, where: Mapping[str, Any] | None
) -> list[tuple[int, float]]:
    """The k best chunks by the BM25 of one FTS5 query, of those that match another and a filter."""
    conditions = ""
    parameters: list[Any] = []
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
