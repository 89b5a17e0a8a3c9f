"""Deleting from a page: what would go is shown and counted first, and nothing else goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import ImmutableMultiDict

from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.listing import Asked, Item, items_of
from clara_mlx.store import browsing

# Memories that are shown of those that would go.
_SHOWN = 10


@dataclass(frozen=True)
class Doomed:
    """What a form asks to forget."""

    handles: tuple[str, ...]  # or else what the filter chooses
    asked: Asked
    until: float  # nothing that was remembered later goes; seconds since 1970

    @classmethod
    def read(cls, given: ImmutableMultiDict[str, str], until: float | None = None) -> Doomed:
        """What the fields of a form, or an address, ask to forget."""
        handles = tuple(dict.fromkeys(given.getlist("handle")))
        asked = Asked() if handles else Asked.read(given)
        return cls(handles, asked, time.time() if until is None else until)

    @property
    def where(self) -> dict[str, Any] | None:
        """The filter of what goes; None if nothing was chosen."""
        if self.handles:
            return {"handle": list(self.handles)}
        # Without a condition it would be everything, which nobody asks for by accident here.
        if not self.asked.filters or self.asked.words:
            return None
        where = self.asked.where
        return where | {"before": min(self.until, where.get("before", self.until))}

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The hidden fields of the form that confirms it."""
        if self.handles:
            return [("handle", handle) for handle in self.handles]
        return [*self.asked.filters.items(), ("until", repr(self.until))]


@dataclass(frozen=True)
class Confirmation:
    """What is shown before anything goes."""

    doomed: Doomed
    number: int
    bytes: int  # of the originals, as each memory has them
    newest: list[Item]


def read_doomed(memory: Memory, doomed: Doomed) -> Confirmation:
    """What would go."""
    where = doomed.where
    if where is None:
        return Confirmation(doomed, 0, 0, [])
    number, size = browsing.count_and_bytes(memory.file, where)
    newest = items_of(browsing.page(memory.file, where, _SHOWN))
    return Confirmation(doomed, number, size, newest)


def forget(memory: Memory, doomed: Doomed, number: int) -> int | None:
    """Forget what was confirmed; None, and nothing is gone, if it is no longer that many.

    Args:
        memory: The memory file.
        doomed: What was confirmed.
        number: The number that was shown when it was.
    """
    where: Mapping[str, Any] | None = doomed.where
    if where is None or browsing.count(memory.file, where) != number:
        return None
    return memory.forget(where=where)
