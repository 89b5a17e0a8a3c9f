"""The list of memories: what a browser asks for, as a filter, and what the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.forms import whole_number
from clara_mlx.store import browsing
from clara_mlx.store.browsing import Common, Group, Listed

#: Memories of one page.
ON_A_PAGE = 50

# The most hits of a search that are looked at; a question is made narrower, not paged for ever.
_MOST_HITS = 100

# Seconds that a page waits until memories that wait beside the file are in it.
_SETTLE_SECONDS = 0.1

# Choices of a filter.
_MOST_CHOICES = 200

# Characters of a title, and of what follows it.
_TITLE_CHARACTERS = 160


@dataclass(frozen=True)
class Asked:
    """What is asked for: words to find, and a filter; empty fields leave all in."""

    words: str = ""
    source: str = ""
    session: str = ""
    project: str = ""
    after: str = ""  # dates, as 2026-11-30
    before: str = ""  # this day included
    page: int = 1

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Asked:
        """What a page's address, or a form, asks for."""
        return cls(
            words=given.get("q", "").strip()[:1000],
            **{name: given.get(name, "") for name in _FILTERS},
            page=max(1, whole_number(given.get("page", "")) or 1),
        )

    @property
    def filters(self) -> dict[str, str]:
        """The filters that are set, by their names in an address."""
        return {name: value for name in _FILTERS if (value := getattr(self, name))}

    @property
    def where(self) -> dict[str, Any]:
        """The filter, as `filters.condition` takes it.

        Raises:
            StoreError: A date is none.
        """
        where: dict[str, Any] = {
            name: value
            for name in ("source", "session", "project")
            if (value := getattr(self, name))
        }
        if self.after:
            where["after"] = _day(self.after).timestamp()
        if self.before:
            where["before"] = (_day(self.before) + timedelta(days=1)).timestamp()
        return where

    def address(self, **changed: str | int) -> str:
        """The address of the same question with some fields changed; empty ones are left out."""
        fields = {"q": self.words, **self.filters} | {k: str(v) for k, v in changed.items()}
        query = urlencode({name: value for name, value in fields.items() if value})
        return f"/?{query}" if query else "/"


_FILTERS = ("source", "session", "project", "after", "before")


@dataclass(frozen=True)
class Item:
    """A memory as the list shows it."""

    memory: Listed
    title: str  # the command that printed it, its path, or its first line
    says: str  # how it goes on, or the line that a search has found
    line: int | None = None  # of the original, on which that line stands


@dataclass(frozen=True)
class Listing:
    """A page of the list."""

    asked: Asked
    items: list[Item]
    total: int  # memories that match
    all: int  # memories in the file
    pages: int
    is_cut: bool  # whether a search may have found more than it gave


def read_listing(memory: Memory, asked: Asked) -> Listing:
    """The page of the list that is asked for.

    Raises:
        StoreError: A date is none, or the file can't be read.
    """
    where = asked.where
    memory.file.settle(_SETTLE_SECONDS)
    everything = memory.status().memories
    if asked.words:
        found, is_cut = _search(memory, asked, where)
        total = len(found)
        pages = max(1, -(-total // ON_A_PAGE))
        start = (min(asked.page, pages) - 1) * ON_A_PAGE
        items = found[start : start + ON_A_PAGE]
        return Listing(asked, items, total, everything, pages, is_cut)
    total = browsing.count(memory.file, where) if where else everything
    pages = max(1, -(-total // ON_A_PAGE))
    offset = (min(asked.page, pages) - 1) * ON_A_PAGE
    rows = browsing.page(memory.file, where, ON_A_PAGE, offset)
    return Listing(asked, items_of(rows), total, everything, pages, False)


def items_of(rows: Sequence[Listed]) -> list[Item]:
    """Memories as the list shows them."""
    return [_item(row) for row in rows]


def choices(memory: Memory, chosen: str, by: Common) -> list[Group]:
    """What a filter offers: the newest of a kind, and the one that is chosen."""
    found = [group for group in browsing.groups(memory.file, by, _MOST_CHOICES) if group.name]
    if chosen and chosen not in {group.name for group in found}:
        found.insert(0, Group(chosen, 0, 0.0))
    return found


def _search(memory: Memory, asked: Asked, where: Mapping[str, Any]) -> tuple[list[Item], bool]:
    """The memories that words find, best first, and whether there may be more.

    One that is named by its handle is the first. Several hits may be of one memory.
    """
    handles: dict[str, tuple[str, int | None]] = {}
    if memory.has(asked.words):
        handles[asked.words] = ("", None)
    hits = memory.recall(asked.words, _MOST_HITS, where or None, mode="text")
    for hit in hits:
        handles.setdefault(hit.handle, (hit.matched, hit.matched_line))
    rows = browsing.by_handle(memory.file, list(handles))
    items = [_item(rows[handle], *found) for handle, found in handles.items() if handle in rows]
    return items, len(hits) == _MOST_HITS


def _item(row: Listed, matched: str = "", line: int | None = None) -> Item:
    """A memory with what it is called: lines of its text say it if nothing else does."""
    lines = [one for one in (part.strip() for part in row.begins.split("\n")) if one]
    named = next(
        (
            value
            for key in ("command", "path", "title")
            if isinstance(value := row.metadata.get(key), str) and value.strip()
        ),
        "",
    )
    title = named or (lines.pop(0) if lines else "(empty)" if not row.length else "(no text)")
    says = matched or " ".join(lines)
    return Item(row, title[:_TITLE_CHARACTERS], says[: 2 * _TITLE_CHARACTERS], line)


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise StoreError(f"{text[:40]!r} is not a date: write 2026-11-30") from None
