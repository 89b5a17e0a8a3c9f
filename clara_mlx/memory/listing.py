"""Memories a page at a time, and what is known of one: its origin, its uses, what stands for it."""

from __future__ import annotations

from dataclasses import dataclass

from clara_mlx.errors import NotFound
from clara_mlx.memory.ledger import Ledger
from clara_mlx.store import browsing
from clara_mlx.store.browsing import Listed, Order, Standing
from clara_mlx.store.fields import check_number
from clara_mlx.store.filters import Where
from clara_mlx.store.newcomer import readable
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import SEARCH_SECONDS
from clara_mlx.store.sums import Use

# The most texts that stand for a memory, other memories of the same text, and uses that are given.
_MOST_STANDING = 20
_MOST_TWINS = 10
_MOST_USES = 100


@dataclass(frozen=True)
class Description:
    """What is known of one memory.

    Attributes:
        memory: What it is, where it came from, and the beginning of its text.
        lines: The number of lines of its text.
        chunks: The number of chunks that it is cut into.
        tokens: The tokens of these; None if it was cut without a tokenizer.
        twins: Handles of other memories of the same content, newest first.
        uses: When it left a prompt and when it was asked back, latest first.
        standing: The texts that are sent in its place, or that tell of it; its own block first.
    """

    memory: Listed
    lines: int
    chunks: int
    tokens: int | None
    twins: list[str]
    uses: list[Use]
    standing: list[Standing]

    @property
    def sent(self) -> list[str]:
        """The texts that are sent in its place; notes only repeat lines of it."""
        return [one.text for one in self.standing if one.kind != "note"]


class Listings:
    """What is shown of memories; a part of `Memory`."""

    _store: Originals
    ledger: Ledger

    def page(
        self, where: Where = None, most: int = 20, skip: int = 0, order: Order = "newest"
    ) -> list[Listed]:
        """Memories a page at a time, with the beginnings of their texts.

        Args:
            where: A filter, as for `recall`.
            most: The number of memories.
            skip: The number to leave out before.
            order: What comes first: newest, oldest, largest, or by source or session.
        """
        self._store.settle(SEARCH_SECONDS)
        most = check_number("most", most)
        return browsing.page(self._store, where, most, max(0, skip), order)

    def count(self, where: Where = None) -> int:
        """The number of memories that match a filter."""
        self._store.settle(SEARCH_SECONDS)
        return browsing.count(self._store, where)

    def projects(self) -> list[str]:
        """The projects that memories belong to: ``project`` in their metadata."""
        self._store.settle(SEARCH_SECONDS)
        return browsing.projects(self._store)

    def describe(self, handle: str) -> Description:
        """What is known of a memory: where it came from, where it was used, what stands for it.

        Raises:
            NotFound: There is no such memory.
        """
        store = self._store
        text = readable(store.text_by_handle(handle))
        store.bring([handle])
        row = browsing.by_handle(store, [handle]).get(handle)
        if row is None:  # it has just been forgotten
            raise NotFound(f"{store.path}: no memory {handle!r}")
        chunks, tokens = browsing.chunk_sizes(store, handle)
        return Description(
            memory=row,
            lines=text.count("\n") + (not text.endswith("\n") and bool(text)),
            chunks=chunks,
            tokens=tokens,
            twins=browsing.same_content(store, handle, _MOST_TWINS),
            uses=self.ledger.uses(handle, _MOST_USES),
            standing=browsing.standing(store, handle, _MOST_STANDING),
        )
