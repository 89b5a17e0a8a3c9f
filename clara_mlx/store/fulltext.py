"""Search by words: candidates by BM25, from the rarest words on, then ranked by their own texts.

If all chunks that have any word of a query were ranked, the words that say least would take
longest, because FTS5 visits every chunk that has one of them. So the words are sorted by the number
of chunks that have them, the rarest first:

- Candidates are the chunks with any of the rarest words: as many words as add up to `CANDIDATES`
  chunks. If that gives fewer than k results, the chunks with both of the next two words are added,
  then those with the next word alone, then all.
- BM25 orders them by as many words, the rarest first, as add up to `POSTINGS` chunks; the commonest
  ones beyond that are left out.

Then the texts of the first `RANKED` are read, and `ranking` says how well they fit. Chunks of
memories whose description fits (the command that printed them) are among them.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from clara_mlx.errors import StoreError
from clara_mlx.store import asked, descriptions, filters, forms
from clara_mlx.store.filters import Where
from clara_mlx.store.ranking import Ranker, rarity
from clara_mlx.store.seen import Place, place, seen
from clara_mlx.store.store import Store

#: Chunks that the words which choose the candidates may have, added up.
CANDIDATES = 5_000

#: Chunks that the words which rank the candidates may have, added up.
POSTINGS = 250_000

#: The first candidates, by BM25, whose texts are read and ranked. Each takes a quarter of a
#: millisecond.
RANKED = 60

# Bytes of the originals that are read for that; more only if the best candidate's has more.
_MOST_READ = 16 << 20

# Characters before and after a chunk that count a little, too.
_AROUND = 768

# Memories that are found by their descriptions, and the chunks of each that become candidates.
_DESCRIBED = 12
_CHUNKS_OF_DESCRIBED = 4

# Memories with a word in their description that are counted, at most.
_MOST_COUNTED = 10_000

#: Chunks of memories, for filters on memories ``m``.
CHUNKS = "FROM chunks ch JOIN memories m ON m.content_id = ch.content_id"


@dataclass(frozen=True)
class _Candidate:
    id: int
    content_id: int
    start: int
    end: int
    size: int  # bytes of the original


def search(store: Store, query: str, k: int, where: Where = None) -> list[tuple[int, float]]:
    """Chunk ids and scores of the k best chunks that have a word of a query, see `TextSearch`."""
    return TextSearch(store, query).search(k, where)


class TextSearch:
    """A query, read and compared with how rare its words are in a file."""

    def __init__(self, store: Store, query: str) -> None:
        self._store = store
        self._asked = asked.read(query)
        ((last,),) = store.read("SELECT coalesce(max(id), 0) FROM chunks")
        ((memories,),) = store.read("SELECT coalesce(max(id), 0) FROM memories")
        self._chunks: int = last
        terms = {word.term: self._with_forms(index) for index, word in enumerate(self._asked.words)}
        self._counts = {term: self._count(term) for term in [*terms.values(), *self._phrases()]}
        counts = [self._counts[term] for term in terms.values()]
        self._terms = sorted(self._counts, key=lambda term: self._counts[term])
        described = [descriptions.count(store, term, _MOST_COUNTED) for term in terms.values()]
        self._described = [
            term for term, count in zip(terms.values(), described, strict=True) if count
        ]
        self._ranker = Ranker(
            self._asked,
            [rarity(count, last) for count in counts],
            [rarity(count, memories) if count else 0.0 for count in described],
        )

    def search(self, k: int, where: Where = None) -> list[tuple[int, float]]:
        """Chunk ids and scores of the k best chunks that have a word of the query.

        The scores are from 0 to 1: about the share of the query that was found.
        """
        filters.condition(where)  # one that makes no sense is refused, whatever is found
        found = self._search_by_words(max(k, RANKED), where)
        ids = [id for id, _ in found]
        ids = ids[:RANKED] + [id for id in self._search_descriptions(where) if id not in ids]
        fits = self._fit(ids, where)
        ranked = sorted(fits.items(), key=lambda item: (-item[1], item[0]))
        rest = [(id, score) for id, score in found if id not in fits]
        if rest:  # they keep their order, below those whose texts were ranked
            lowest = ranked[-1][1] if ranked else 1.0
            most = max(rest[0][1], 1e-9)
            ranked += [(id, lowest * max(0.0, score / most)) for id, score in rest]
        return ranked[:k]

    def best_line(self, text: str, start: int, end: int) -> Place:
        """The line of a part of a text that fits best."""
        line = self._ranker.fit(seen(text, start, end)).line
        return place(text, start, end, line)

    # -- candidates ------------------------------------------------------------------------------

    def _phrases(self) -> Sequence[str]:
        room = max(0, asked.MOST_TERMS - len(self._asked.words))
        return self._asked.phrases[:room]

    def _with_forms(self, index: int) -> str:
        """The term of a word, with those of its other forms that are in the index."""
        word = self._asked.words[index]
        found = [word.term]
        if self._asked.has_forms(index):
            found += self._indexed([*forms.patterns(word.text)])
        return f"({' OR '.join(found)})" if len(found) > 1 else word.term

    def _indexed(self, terms: Sequence[str]) -> list[str]:
        """Those terms that are in an index: all at once, as mostly none is, or half by half."""
        if not terms:
            return []
        ((found,),) = self._store.read(
            "SELECT EXISTS (SELECT 1 FROM chunk_text WHERE chunk_text MATCH ?1) "
            "OR EXISTS (SELECT 1 FROM memory_text WHERE memory_text MATCH ?1)",
            (" OR ".join(terms),),
        )
        if not found or len(terms) == 1:
            return [*terms] if found else []
        half = len(terms) // 2
        return self._indexed(terms[:half]) + self._indexed(terms[half:])

    def _count(self, term: str) -> float:
        """The number of chunks that have a term; an estimate if they are many."""
        ((count, reached),) = self._store.read(
            "SELECT count(*), max(rowid) FROM "
            "(SELECT rowid FROM chunk_text WHERE chunk_text MATCH ? LIMIT ?)",
            (term, CANDIDATES + 1),
        )
        return float(count * self._chunks / reached if count > CANDIDATES else count)

    def _search_by_words(self, k: int, where: Where) -> list[tuple[int, float]]:
        """Chunk ids and negated BM25 of the k best candidates."""
        found: list[tuple[int, float]] = []
        for candidates, ranked_by in self._plans(k):
            found = self._rank(" OR ".join(ranked_by), candidates, k, where)
            if len(found) == k:
                break
        return found

    def _plans(self, k: int) -> Iterator[tuple[str | None, Sequence[str]]]:
        """From few candidates to all: the query that they must match, if any, and the terms."""
        terms = [term for term in self._terms if self._counts[term]]
        sums = list(accumulate(self._counts[term] for term in terms))
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
        self, match: str, candidates: str | None, k: int, where: Where
    ) -> list[tuple[int, float]]:
        """The k best chunks by the BM25 of one query, of those that match another and a filter."""
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
        rows = self._store.read(
            "SELECT rowid, bm25(chunk_text, 1.0, 0.5) AS score FROM chunk_text "
            f"WHERE chunk_text MATCH ?{conditions} ORDER BY score, rowid LIMIT ?",
            [match, *parameters, k],
        )
        return [(row[0], -row[1]) for row in rows]

    def _search_descriptions(self, where: Where) -> list[int]:
        """The first chunks of the memories whose descriptions have words of the query."""
        if not self._described:
            return []
        query = " OR ".join(self._described)
        contents = descriptions.search(self._store, query, _DESCRIBED, where)
        rows = self._store.read(
            "SELECT ch.id FROM json_each(?) c, chunks ch WHERE ch.content_id = c.value AND ch.id "
            "IN (SELECT id FROM chunks WHERE content_id = c.value ORDER BY start LIMIT ?)",
            (json.dumps(contents), _CHUNKS_OF_DESCRIBED),
        )
        return [row[0] for row in rows]

    # -- ranking ---------------------------------------------------------------------------------

    def _fit(self, ids: Sequence[int], where: Where) -> dict[int, float]:
        """How well chunks fit; those whose texts would take too long to read are left out."""
        candidates = self._candidates(ids)
        commands: dict[int, frozenset[str]] = {}
        if self._described:
            contents = {one.content_id for one in candidates}
            commands = descriptions.of_contents(self._store, sorted(contents), where)
        fits: dict[int, float] = {}
        read: set[int] = set()
        size = 0
        for one in candidates:
            if one.content_id not in read:
                if read and size + one.size > _MOST_READ:
                    break
                read.add(one.content_id)
                size += one.size
            with suppress(StoreError):  # damaged, or forgotten since: its words are all there is
                text = self._store.text(one.content_id)
                before = seen(text, max(0, one.start - _AROUND), one.start)
                after = seen(text, one.end, min(len(text), one.end + _AROUND))
                fits[one.id] = self._ranker.fit(
                    seen(text, one.start, one.end),
                    f"{before}\n{after}",
                    commands.get(one.content_id, frozenset()),
                ).score
        return fits

    def _candidates(self, ids: Sequence[int]) -> list[_Candidate]:
        """The places of chunks, in the order given, without those that were forgotten."""
        rows = self._store.read(
            "SELECT ch.id, ch.content_id, ch.start, ch.end, c.length FROM json_each(?) given "
            "JOIN chunks ch ON ch.id = given.value JOIN contents c ON c.id = ch.content_id "
            "ORDER BY given.key",
            (json.dumps(list(ids)),),
        )
        return [_Candidate(*row) for row in rows]
