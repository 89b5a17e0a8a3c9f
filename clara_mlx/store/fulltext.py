"""Search by words: candidates by BM25, from the rarest words on, then ranked by their own texts.

If all chunks that have any word of a query were ranked, the words that say least would take
longest, because an index visits every chunk that has one of them. So the words are sorted by the
number of chunks that have them, the rarest first:

- Candidates are the chunks with any of the rarest words: as many words as add up to `CANDIDATES`
  chunks. If that gives fewer than k results, the chunks with both of the next two words are added,
  then those with the next word alone, then all.
- BM25 orders them by as many words, the rarest first, as add up to `POSTINGS` chunks; the commonest
  ones beyond that are left out.

Then the texts of the first `RANKED` are read, and `ranking` says how well they fit. Chunks of
memories whose description fits (the command that printed them) are among them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from clara_mlx.store import asked, descriptions, filters, forms
from clara_mlx.store.filters import Where
from clara_mlx.store.originals import Originals
from clara_mlx.store.ranking import Ranker, rarity
from clara_mlx.store.seen import Place, place, seen
from clara_mlx.store.terms import Alternatives, Group, any_of
from clara_mlx.store.word_search import open_words

#: Chunks that the words which choose the candidates may have, added up, if the index has no lower
#: limit (`WordSearch.candidates`).
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


@dataclass(frozen=True)
class _Candidate:
    id: int
    content_id: int
    start: int
    end: int
    size: int  # bytes of the original


def search(store: Originals, query: str, k: int, where: Where = None) -> list[tuple[int, float]]:
    """Chunk ids and scores of the k best chunks that have a word of a query, see `TextSearch`."""
    return TextSearch(store, query).search(k, where)


class TextSearch:
    """A query, read and compared with how rare its words are in a memory."""

    def __init__(self, store: Originals, query: str) -> None:
        self._store = store
        self._texts: dict[int, str] = {}  # by content, of the chunks that were ranked
        self._asked = asked.read(query)
        self._index = open_words(store)
        self._candidates = min(CANDIDATES, self._index.candidates)
        words = self._count_words()
        if longer := self._longer_words(words):
            self._asked = self._asked.with_longer(longer)
            words = self._count_words()
        self._groups = sorted(self._counts, key=lambda group: self._counts[group])
        described = self._index.count_described(words, _MOST_COUNTED)
        self._described = [word for word, count in zip(words, described, strict=True) if count]
        self._ranker = Ranker(
            self._asked,
            [rarity(self._counts[word], self._index.chunks) for word in words],
            [rarity(count, self._index.memories) if count else 0.0 for count in described],
        )

    def search(self, k: int, where: Where = None) -> list[tuple[int, float]]:
        """Chunk ids and scores of the k best chunks that have a word of the query.

        The scores are from 0 to 1: about the share of the query that was found.
        """
        # One that makes no sense is refused, whatever is found.
        filters.condition(where, self._store.dialect)
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

    def text(self, content_id: int) -> str:
        """A content as text, see `Originals.text`; at hand if it was ranked."""
        return self._texts.get(content_id) or self._store.text(content_id)

    def best_line(self, text: str, start: int, end: int) -> Place:
        """The line of a part of a text that fits best."""
        line = self._ranker.fit(seen(text, start, end)).line
        return place(text, start, end, line)

    # -- candidates ------------------------------------------------------------------------------

    def _count_words(self) -> list[Group]:
        """The words of the query with their forms; all that is looked for is counted."""
        words = self._with_forms()
        groups = list(dict.fromkeys([*words, *self._phrases()]))
        counts = self._index.count(groups, self._candidates)
        self._counts = dict(zip(groups, counts, strict=True))
        return words

    def _longer_words(self, words: Sequence[Group]) -> list[str]:
        """The words that those which no chunk has are parts of, if there is an index of parts."""
        nowhere = [
            word.text
            for word, group in zip(self._asked.words, words, strict=True)
            if not self._counts[group]
        ]
        found = self._index.containing(nowhere)
        return [one for longer in found for one in longer]

    def _phrases(self) -> list[Group]:
        room = max(0, asked.MOST_TERMS - len(self._asked.words))
        return [(phrase,) for phrase in self._asked.phrases[:room]]

    def _with_forms(self) -> list[Group]:
        """The words of the query, each with those of its other forms that are in the index."""
        found = self._index.existing(
            [
                [*forms.patterns(word.text)] if self._asked.has_forms(index) else []
                for index, word in enumerate(self._asked.words)
            ]
        )
        return [(word.term, *terms) for word, terms in zip(self._asked.words, found, strict=True)]

    def _search_by_words(self, k: int, where: Where) -> list[tuple[int, float]]:
        """Chunk ids and negated BM25 of the k best candidates."""
        found: list[tuple[int, float]] = []
        for candidates, ranked_by in self._plans(k):
            found = self._index.rank(ranked_by, candidates, k, where)
            if len(found) == k:
                break
        return found

    def _plans(self, k: int) -> Iterator[tuple[Alternatives | None, Sequence[Group]]]:
        """From few candidates to all: what they must match, if anything, and what ranks them."""
        groups = [group for group in self._groups if self._counts[group]]
        sums = list(accumulate(self._counts[group] for group in groups))
        number = bisect_right(sums, self._candidates)
        rare, common = any_of(groups[:number]), groups[number:]
        ranking = groups[: max(number + 2, bisect_right(sums, POSTINGS))]
        if common:
            if rare and sums[number - 1] >= k:
                yield rare, ranking
            if common[1:]:
                yield [*rare, common[:2]], ranking
                yield [*rare, common[:1]], ranking
        if groups:
            yield None, groups

    def _search_descriptions(self, where: Where) -> list[int]:
        """The first chunks of the memories whose descriptions have words of the query."""
        if not self._described:
            return []
        contents = self._index.described(self._described, _DESCRIBED, where)
        dialect = self._store.dialect
        rows = self._store.read(
            "SELECT id, content_id FROM (SELECT id, content_id, "
            "row_number() OVER (PARTITION BY content_id ORDER BY start) AS place FROM chunks "
            f"WHERE {dialect.is_among('content_id')}) AS numbered WHERE place <= ? ORDER BY place",
            (dialect.many(contents), _CHUNKS_OF_DESCRIBED),
        )
        place = {content_id: place for place, content_id in enumerate(contents)}
        return [row["id"] for row in sorted(rows, key=lambda row: place[row["content_id"]])]

    # -- ranking ---------------------------------------------------------------------------------

    def _fit(self, ids: Sequence[int], where: Where) -> dict[int, float]:
        """How well chunks fit; those whose texts would take too long to read are left out."""
        candidates = self._places(ids)
        commands: dict[int, frozenset[str]] = {}
        if self._described:
            contents = {one.content_id for one in candidates}
            commands = descriptions.of_contents(self._store, sorted(contents), where)
        self._texts = self._store.texts(self._affordable(candidates))
        fits: dict[int, float] = {}
        for one in candidates:
            text = self._texts.get(one.content_id)
            if text is not None:
                before = seen(text, max(0, one.start - _AROUND), one.start)
                after = seen(text, one.end, min(len(text), one.end + _AROUND))
                fits[one.id] = self._ranker.fit(
                    seen(text, one.start, one.end),
                    f"{before}\n{after}",
                    commands.get(one.content_id, frozenset()),
                ).score
        return fits

    def _affordable(self, candidates: Sequence[_Candidate]) -> set[int]:
        """The contents of the first candidates, as many as can be read in time."""
        wanted: set[int] = set()
        size = 0
        for one in candidates:
            if one.content_id not in wanted:
                if wanted and size + one.size > _MOST_READ:
                    break
                wanted.add(one.content_id)
                size += one.size
        return wanted

    def _places(self, ids: Sequence[int]) -> list[_Candidate]:
        """The places of chunks, in the order given, without those that were forgotten."""
        dialect = self._store.dialect
        rows = self._store.read(
            'SELECT ch.id, ch.content_id, ch.start, ch."end", c.length FROM chunks ch '
            f"JOIN contents c ON c.id = ch.content_id WHERE {dialect.is_among('ch.id')}",
            (dialect.many(ids),),
        )
        found = {row["id"]: _Candidate(*row) for row in rows}
        return [found[id] for id in ids if id in found]
