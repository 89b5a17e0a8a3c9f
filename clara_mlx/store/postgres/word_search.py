"""The full-text index of a team's database: a GIN index finds candidates, BM25 is computed here.

A word's number of chunks is counted up to a limit, and estimated beyond it from where the first
ones stand; such an estimate is kept until there are a tenth more chunks. So what a search costs
does not grow with the database, but for words that nearly all chunks have.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from clara_mlx.store import filters
from clara_mlx.store.filters import Where
from clara_mlx.store.postgres import bm25, vectors
from clara_mlx.store.postgres import parts as word_parts
from clara_mlx.store.postgres.bm25 import FREQUENCY, Candidates, Collection
from clara_mlx.store.postgres.database import PostgresDatabase
from clara_mlx.store.protocol import Database
from clara_mlx.store.terms import Alternatives, Group, Term, any_of

# See `WordSearch.candidates`: fewer than in a file, as what ranks them is read from the server.
_CANDIDATES = 2_000

# The most candidates that are read where only words choose them that more chunks have.
_MOST_READ = 20_000

# The most chunks that have all words of a phrase, which are looked at for the phrase itself.
_MOST_FOR_PHRASE = 20_000

# Memories that the words which choose among descriptions may have, added up.
_DESCRIBED = 500

# Numbers of chunks up to which their mean length is computed from all of them.
_ALL_MEASURED = 5_000

# The share by which chunks may become more until what is known of all of them is found anew.
_GROWTH = 0.1


@dataclass
class _Known:
    """What is known of all rows of a table, when its largest id was ``last``."""

    last: int = -1
    collection: Collection = field(default_factory=lambda: Collection(0, 1))
    common: dict[str, float] = field(default_factory=dict)  # counts beyond the limit, by query

    def holds(self, last: int) -> bool:
        """Whether it still holds when the largest id is another one."""
        tolerated = self.last * _GROWTH if last > _ALL_MEASURED else 0
        return 0 <= last - self.last <= tolerated


_known: WeakKeyDictionary[PostgresDatabase, dict[str, _Known]] = WeakKeyDictionary()
_lock = threading.Lock()


class PostgresWordSearch:
    """The index of a team's database, see `WordSearch`."""

    candidates = _CANDIDATES

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        (row,) = database.read(
            "SELECT (SELECT coalesce(max(id), 0) FROM chunks) AS chunks, "
            "(SELECT coalesce(max(id), 0) FROM memories) AS memories"
        )
        self.chunks: int = row["chunks"]
        self.memories: int = row["memories"]
        self._of_chunks = _Index(database, "chunk_text", self.chunks)
        self._of_memories = _Index(database, "memory_text", self.memories)

    def existing(self, forms: Sequence[Sequence[Term]]) -> list[list[Term]]:
        """Of each list, the terms that any chunk or description has."""
        # All of a list at once first, as mostly none is.
        some = self._existing([tuple(terms) for terms in forms if terms])
        left = [terms if tuple(terms) in some else [] for terms in forms]
        found = self._existing([(term,) for terms in left for term in terms])
        return [[term for term in terms if (term,) in found] for terms in left]

    def _existing(self, groups: list[Group]) -> set[Group]:
        """Those groups of which any chunk or description has any term."""
        if not groups:
            return set()
        queries = {vectors.group_query(group): group for group in groups}
        rows = self._database.read(
            "SELECT q FROM unnest(?::text[]) AS given (q) "
            "WHERE EXISTS (SELECT 1 FROM chunk_text WHERE words @@ q::tsquery) "
            "OR EXISTS (SELECT 1 FROM memory_text WHERE words @@ q::tsquery)",
            ([*queries],),
        )
        return {queries[row["q"]] for row in rows}

    def containing(self, parts: Sequence[str]) -> list[list[str]]:
        """For each part, some words of chunks that it is a part of, if there is an index of it."""
        if not parts or not word_parts.is_indexed(self._database):
            return [[] for _ in parts]
        return word_parts.containing(self._database, parts)

    def count(self, groups: Sequence[Group], exactly_up_to: int) -> list[float]:
        """The number of chunks that have each group; an estimate where it is larger."""
        return self._of_chunks.count(groups, exactly_up_to)

    def count_described(self, groups: Sequence[Group], most: int) -> list[float]:
        """The number of memories whose descriptions have each group; an estimate if they are many.

        It is not limited to ``most``, as an estimate costs no more.
        """
        return self._of_memories.count(groups, min(most, _CANDIDATES))

    def rank(
        self, groups: Sequence[Group], candidates: Alternatives | None, k: int, where: Where
    ) -> list[tuple[int, float]]:
        """Ids and BM25 of the k best chunks."""
        condition, parameters = "", list[Any]()
        if where:
            wanted, parameters = filters.condition(where, self._database.dialect)
            condition = f" AND t.id IN (SELECT ch.id {filters.CHUNKS} WHERE {wanted})"
        matching = any_of(groups) if candidates is None else candidates
        return self._of_chunks.rank(groups, matching, condition, parameters)[:k]

    def described(self, groups: Sequence[Group], k: int, where: Where) -> list[int]:
        """The contents of the k memories whose descriptions fit best, by their rarest words."""
        wanted, parameters = filters.condition(where, self._database.dialect)
        condition = f" AND t.id IN (SELECT m.id FROM memories m WHERE {wanted})"
        matching = any_of(self._of_memories.rarest(groups, _DESCRIBED))
        found = self._of_memories.rank(groups, matching, condition, parameters)
        # Of equal ones, those that were remembered last.
        ids = [id for id, _ in sorted(found, key=lambda one: (-one[1], -one[0]))[:k]]
        rows = self._database.read("SELECT id, content_id FROM memories WHERE id = ANY(?)", (ids,))
        contents = {row["id"]: row["content_id"] for row in rows}
        return list(dict.fromkeys(contents[id] for id in ids if id in contents))


class _Index:
    """The words of one table: ``chunk_text``, or ``memory_text``."""

    def __init__(self, database: PostgresDatabase, table: str, last: int) -> None:
        self._database = database
        self._table = table
        self._last = last
        self._counts: dict[str, float] = {}  # by query
        # Of terms that are no single words, those that have them, if they are few.
        self._places: dict[Term, list[int]] = {}

    def count(self, groups: Sequence[Group], exactly_up_to: int) -> list[float]:
        """The number of rows that have each group; an estimate where it is larger."""
        terms = dict.fromkeys(term for group in groups for term in group)
        single = [term for term in terms if _is_single(term)]
        wanted = [vectors.group_query((term,)) for term in single]
        wanted += [vectors.group_query(group) for group in groups if len(group) > 1]
        known = self._read_known()
        self._counts |= {query: known.common[query] for query in wanted if query in known.common}
        for query, (count, reached) in self._read_counts(
            [query for query in dict.fromkeys(wanted) if query not in self._counts], exactly_up_to
        ).items():
            if count > exactly_up_to:
                known.common[query] = count * self._last / reached
            self._counts[query] = known.common.get(query, count)
        self._find_places([term for term in terms if not _is_single(term)], exactly_up_to)
        return [self._counts[vectors.group_query(group)] for group in groups]

    def rarest(self, groups: Sequence[Group], most: int) -> list[Group]:
        """The rarest groups, which have up to so many rows together; at least one."""
        ordered = sorted(groups, key=lambda group: self._counts[vectors.group_query(group)])
        total, found = 0.0, list[Group]()
        for group in ordered:
            total += self._counts[vectors.group_query(group)]
            if found and total > most:
                break
            found.append(group)
        return found

    def rank(
        self,
        groups: Sequence[Group],
        matching: Alternatives,
        condition: str,
        parameters: Sequence[Any],
    ) -> list[tuple[int, float]]:
        """Ids and BM25 of the rows that match, the best first."""
        (row,) = self._database.read(
            "SELECT array_agg(id) AS ids, array_agg(length) AS lengths, "
            "array_agg(octet_length(frequencies)) AS sizes, "
            "string_agg(frequencies, ''::bytea) AS frequencies FROM ("
            f"SELECT id, length, frequencies FROM {self._table} t "
            f"WHERE words @@ ?::tsquery{condition} LIMIT {_MOST_READ}) AS found",
            (vectors.query(matching), *parameters),
        )
        if row["ids"] is None:
            return []
        sizes = np.array(row["sizes"], np.int64) // FREQUENCY.itemsize
        candidates = Candidates(
            np.array(row["ids"], np.int64),
            np.array(row["lengths"], np.int64),
            sizes,
            row["frequencies"],
        )
        terms = dict.fromkeys(term for group in groups for term in group)
        counts = {term: self._counts[vectors.group_query((term,))] for term in terms}
        collection = self._read_known().collection
        ids, scores = bm25.scores(candidates, counts, self._places, collection)
        order = np.lexsort((ids, -scores))
        return list(zip(ids[order].tolist(), scores[order].tolist(), strict=True))

    def _read_counts(self, queries: list[str], most: int) -> dict[str, tuple[int, int]]:
        """For each query, the number of rows, up to one more than ``most``, and their largest id.

        The rows are counted in the order in which they were written, so that the largest id says
        how many others there may be.
        """
        if not queries:
            return {}
        rows = self._database.read(
            "SELECT q, c.number, c.reached FROM unnest(?::text[]) AS given (q), LATERAL ("
            "SELECT count(*) AS number, max(id) AS reached FROM ("
            f"SELECT id FROM {self._table} WHERE words @@ q::tsquery LIMIT ?) AS counted) AS c",
            (queries, most + 1),
        )
        return {row["q"]: (row["number"], row["reached"]) for row in rows}

    def _find_places(self, terms: Sequence[Term], most: int) -> None:
        """Find the rows that have terms of several words, and beginnings of words.

        Words in a row are looked for in each row that has them all; if that may be too many, they
        count as found nowhere.
        """
        wanted = {term: vectors.group_query((term,)) for term in terms}
        conjunctions = {
            term: vectors.query([[(Term((word,)),) for word in dict.fromkeys(term.words)]])
            for term in terms
            if len(term.words) > 1
        }
        shared = self._read_counts([*conjunctions.values()], _MOST_FOR_PHRASE)
        for term, words in conjunctions.items():
            if shared[words][0] > _MOST_FOR_PHRASE:
                self._counts[wanted.pop(term)], self._places[term] = 0.0, []
        if not wanted:
            return
        rows = self._database.read(
            "SELECT q, array(SELECT id "
            f"FROM {self._table} WHERE words @@ q::tsquery LIMIT ?) AS ids "
            "FROM unnest(?::text[]) AS given (q)",
            (most + 1, [*wanted.values()]),
        )
        found = {row["q"]: [*dict.fromkeys(row["ids"])] for row in rows}
        for term, query in wanted.items():
            ids = found[query]
            is_all = len(ids) <= most
            self._counts[query] = len(ids) if is_all else len(ids) * self._last / max(ids)
            self._places[term] = ids

    def _read_known(self) -> _Known:
        """What is known of all rows; read again if they have become many more."""
        with _lock:
            known = _known.setdefault(self._database, {}).setdefault(self._table, _Known())
            if not known.holds(self._last):
                known.last, known.common = self._last, {}
                known.collection = self._measure()
            return known

    def _measure(self) -> Collection:
        """The number of rows and their mean length, from a sample if there are many."""
        sample, number = "", "count(*)"
        if self._last > _ALL_MEASURED:
            sample = f" TABLESAMPLE SYSTEM ({100 * _ALL_MEASURED / self._last:.9f})"
            number = str(self._last)
        (row,) = self._database.read(
            f"SELECT {number} AS number, coalesce(avg(length), 1)::float8 AS length "
            f"FROM {self._table}{sample}"
        )
        return Collection(row["number"], row["length"])


def _is_single(term: Term) -> bool:
    """Whether a term is one whole word, whose frequencies are known."""
    return len(term.words) == 1 and not term.is_beginning


def open_index(database: Database) -> PostgresWordSearch:
    """The index of a team's database, for one query of a user."""
    assert isinstance(database, PostgresDatabase)
    return PostgresWordSearch(database)
