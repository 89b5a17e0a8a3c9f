"""The full-text index of a file: SQLite's FTS5, which counts and ranks by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clara_mlx.store import filters
from clara_mlx.store.filters import Where
from clara_mlx.store.protocol import Database
from clara_mlx.store.terms import Alternatives, Group, Term, any_of

# The words as they are written count fully, the parts of identifiers half.
_WEIGHTS = "1.0, 0.5"


def match(alternatives: Alternatives) -> str:
    """A query of FTS5; an empty string, which it refuses, for no alternatives."""
    return " OR ".join(_in_brackets(" AND ", map(_group, groups)) for groups in alternatives)


def _group(group: Group) -> str:
    return _in_brackets(" OR ", map(_term, group))


def _term(term: Term) -> str:
    return f'"{" ".join(term.words)}"' + "*" * term.is_beginning


def _in_brackets(between: str, pieces: Sequence[str] | Any) -> str:
    found = [*pieces]
    return f"({between.join(found)})" if len(found) > 1 else found[0]


class Fts5Search:
    """The index of a file, see `WordSearch`."""

    candidates = 5_000

    def __init__(self, file: Database) -> None:
        self._file = file
        ((self.chunks, self.memories),) = file.read(
            "SELECT (SELECT coalesce(max(id), 0) FROM chunks), "
            "(SELECT coalesce(max(id), 0) FROM memories)"
        )

    def existing(self, forms: Sequence[Sequence[Term]]) -> list[list[Term]]:
        """Of each list, the terms that any chunk or description has."""
        return [self._existing(terms) for terms in forms]

    def _existing(self, terms: Sequence[Term]) -> list[Term]:
        """Those terms that are in an index: all at once, as mostly none is, or half by half."""
        if not terms:
            return []
        ((found,),) = self._file.read(
            "SELECT EXISTS (SELECT 1 FROM chunk_text WHERE chunk_text MATCH ?1) "
            "OR EXISTS (SELECT 1 FROM memory_text WHERE memory_text MATCH ?1)",
            (match(any_of([(term,) for term in terms])),),
        )
        if not found or len(terms) == 1:
            return [*terms] if found else []
        half = len(terms) // 2
        return self._existing(terms[:half]) + self._existing(terms[half:])

    def containing(self, parts: Sequence[str]) -> list[list[str]]:
        """No words: a file has no index of parts but those of identifiers, which are words."""
        return [[] for _ in parts]

    def count(self, groups: Sequence[Group], exactly_up_to: int) -> list[float]:
        """The number of chunks that have each group; an estimate where it is larger."""
        return [self._count(group, exactly_up_to) for group in groups]

    def _count(self, group: Group, exactly_up_to: int) -> float:
        ((count, reached),) = self._file.read(
            "SELECT count(*), max(rowid) FROM "
            "(SELECT rowid FROM chunk_text WHERE chunk_text MATCH ? LIMIT ?)",
            (match([[group]]), exactly_up_to + 1),
        )
        return float(count * self.chunks / reached if count > exactly_up_to else count)

    def count_described(self, groups: Sequence[Group], most: int) -> list[float]:
        """The number of memories whose descriptions have each group, ``most`` at most."""
        sql = "SELECT count(*) FROM (SELECT 1 FROM memory_text WHERE memory_text MATCH ? LIMIT ?)"
        return [self._file.read(sql, (match([[group]]), most))[0][0] for group in groups]

    def rank(
        self, groups: Sequence[Group], candidates: Alternatives | None, k: int, where: Where
    ) -> list[tuple[int, float]]:
        """Ids and negated BM25 of the k best chunks."""
        conditions = ""
        parameters: list[Any] = []
        # With the +, FTS5 matches once and then filters; without it, once for each allowed row.
        if candidates is not None:
            conditions += " AND +rowid IN (SELECT rowid FROM chunk_text WHERE chunk_text MATCH ?)"
            parameters.append(match(candidates))
        if where:
            condition, values = filters.condition(where, self._file.dialect)
            conditions += f" AND +rowid IN (SELECT ch.id {filters.CHUNKS} WHERE {condition})"
            parameters += values
        rows = self._file.read(
            f"SELECT rowid, bm25(chunk_text, {_WEIGHTS}) AS score FROM chunk_text "
            f"WHERE chunk_text MATCH ?{conditions} ORDER BY score, rowid LIMIT ?",
            [match(any_of(groups)), *parameters, k],
        )
        return [(row[0], -row[1]) for row in rows]

    def described(self, groups: Sequence[Group], k: int, where: Where) -> list[int]:
        """The contents of the k memories whose descriptions fit best."""
        condition, parameters = filters.condition(where, self._file.dialect)
        rows = self._file.read(
            "SELECT m.content_id FROM memory_text JOIN memories m ON m.id = memory_text.rowid "
            f"WHERE memory_text MATCH ? AND {condition} "
            f"ORDER BY bm25(memory_text, {_WEIGHTS}), m.id DESC LIMIT ?",
            [match(any_of(groups)), *parameters, k],
        )
        return list(dict.fromkeys(row[0] for row in rows))
