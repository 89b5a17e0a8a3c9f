"""What the search by words needs of a database's full-text index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from clara_mlx.store.filters import Where
from clara_mlx.store.fts5 import Fts5Search
from clara_mlx.store.opening import is_url
from clara_mlx.store.originals import Originals
from clara_mlx.store.terms import Alternatives, Group, Term


class WordSearch(Protocol):
    """A full-text index, as one query of a user sees it.

    It has the words of chunks, and those of the descriptions of memories.

    Attributes:
        chunks: Number of chunks; a little more if some were forgotten.
        memories: Number of memories, likewise.
        candidates: Chunks that the words which choose candidates for `rank` should have, added up,
            at most: more would take it long.
    """

    chunks: int
    memories: int
    candidates: int

    def existing(self, forms: Sequence[Sequence[Term]]) -> list[list[Term]]:
        """Of each list, the terms that any chunk or description has."""

    def containing(self, parts: Sequence[str]) -> list[list[str]]:
        """For each part, some words of chunks that it is a part of; none without an index of it."""

    def count(self, groups: Sequence[Group], exactly_up_to: int) -> list[float]:
        """The number of chunks that have each group; an estimate where it is larger."""

    def count_described(self, groups: Sequence[Group], most: int) -> list[float]:
        """The number of memories whose descriptions have each group, about ``most`` at most."""

    def rank(
        self, groups: Sequence[Group], candidates: Alternatives | None, k: int, where: Where
    ) -> list[tuple[int, float]]:
        """Ids and scores of the k chunks that are best by BM25, the best first.

        Args:
            groups: What ranks; a chunk has to have any of it.
            candidates: What a chunk must match besides; all may be found without it.
            k: Number of chunks; fewer only if fewer match.
            where: A filter of their memories.
        """

    def described(self, groups: Sequence[Group], k: int, where: Where) -> list[int]:
        """Contents of the k memories whose descriptions are best by BM25, the best first."""


def open_words(store: Originals) -> WordSearch:
    """The full-text index of a memory, for one query of a user."""
    if not is_url(store.path):
        return Fts5Search(store)
    from clara_mlx.store.postgres.word_search import open_index  # it brings in numpy

    return open_index(store)
