"""A connection to a database, as those who write rows know it: SQLite's, or one to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Cursor(Protocol):
    """The rows that a statement gave, or the number of those that it changed."""

    @property
    def rowcount(self) -> int:
        """Number of rows that were changed."""

    def fetchone(self) -> Any:
        """The next row; None if there is none."""

    def fetchall(self) -> list[Any]:
        """All other rows."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection in a transaction, which whoever gave it commits or rolls back."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor:
        """Run a statement."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run a statement once for each row of parameters."""


class Reader(Protocol):
    """Whatever gives the rows of a query: a memory's database."""

    def read(self, sql: str, parameters: Sequence[Any] = ..., /) -> list[Any]:
        """Rows of a query."""
