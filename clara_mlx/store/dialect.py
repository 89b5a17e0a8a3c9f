"""What SQLite and PostgreSQL have different words for, each as the method of an object.

A `Dialect` makes pieces of SQL, and writes the rows of those tables that differ: the words that a
search looks for, and the sketches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from clara_mlx.store.connection import Connection, Reader


@dataclass(frozen=True)
class MemoryRow:
    """A new memory, as it is inserted."""

    handle: str
    content_id: int
    source: str | None
    session: str | None
    created_at: float
    metadata: str  # JSON
    described: tuple[str, str] | None  # the words of its description, see `descriptions`


# Start, end, tokens, and the two columns of the full-text index.
ChunkRow = tuple[int, int, int | None, str, str]


class Sketches(Protocol):
    """The tables of sketches, one for each space."""

    def create(self, connection: Connection, space_id: int, bits: int) -> None:
        """Create the table for sketches of ``bits`` bits."""

    def drop(self, connection: Connection, space_id: int) -> None:
        """Drop the table."""

    def add(
        self, connection: Connection, space_id: int, sketches: Iterable[tuple[int, bytes]]
    ) -> None:
        """Insert sketches, as (chunk id, bits), of chunks that have none."""

    def remove(self, connection: Connection, space_id: int, chunk_ids: Sequence[int]) -> None:
        """Delete the sketches of chunks, and begin a new epoch."""

    def ids(self, file: Reader, space_id: int) -> set[int]:
        """The chunks that have a sketch."""

    def read(self, file: Reader, space_id: int, chunk_ids: Sequence[int]) -> dict[int, bytes]:
        """The sketches of chunks, by their ids; without those that have none."""


class Dialect(ABC):
    """The words of one database."""

    sketches: Sketches

    #: The rows of the full-text index of chunks, one for each chunk.
    indexed_chunks = "chunk_text"

    #: The columns by which a row of `days` is found again.
    days_key: str

    @abstractmethod
    def is_one_of(self, what: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        """The condition that a value is one of these texts or digests, and its parameters."""

    @abstractmethod
    def is_among(self, what: str) -> str:
        """The condition that a value is one of a list, which is one parameter made by `many`."""

    @abstractmethod
    def many(self, values: Sequence[Any]) -> Any:
        """Numbers or strings as the one parameter that `is_among` takes."""

    @abstractmethod
    def field(self, key: str, table: str = "") -> str:
        """A value at the top of memories' metadata as text; what is damaged has none.

        Args:
            key: A key without quotes and backslashes; no user's, as it becomes SQL.
            table: The name by which the query calls the memories, if it does.
        """

    @abstractmethod
    def lesser(self, one: str, other: str) -> str:
        """The smaller one of two values."""

    @abstractmethod
    def greater(self, one: str, other: str) -> str:
        """The greater one of two values."""

    @abstractmethod
    def local_date(self, seconds: str) -> str:
        """The date of a time in seconds since 1970, where this process runs: ``2026-11-30``."""

    @abstractmethod
    def metadata_conditions(
        self, key: str, values: Sequence[Any], parameters: list[Any]
    ) -> Iterable[str]:
        """Conditions on a key of the metadata of memories ``m``; adds their parameters.

        Args:
            key: The key.
            values: Strings, numbers, bools or None; one of them has to match, by its type as JSON
                has them.
            parameters: The parameters so far.
        """

    @abstractmethod
    def hold_content(self, connection: Connection, content_id: int) -> None:
        """Let no other transaction cut this content into chunks until this one is done."""

    def in_common_order(self, digests: Iterable[str]) -> Iterable[str]:
        """Digests of contents in the order in which one transaction inserts them."""
        return digests

    @abstractmethod
    def insert_memory(self, connection: Connection, row: MemoryRow) -> int:
        """Insert a memory with the words of its description; returns its id."""

    @abstractmethod
    def insert_chunks(
        self, connection: Connection, content_id: int, rows: Sequence[ChunkRow]
    ) -> None:
        """Insert the chunks of a content with their words."""

    @abstractmethod
    def finish_removal(self, connection: Connection, *, words: bool = True) -> None:
        """Finish a removal of memories, in its transaction.

        Args:
            connection: The transaction.
            words: Whether to take their words out of the full-text index if they are still in it,
                which takes space on the disk.
        """
