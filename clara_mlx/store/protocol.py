"""What the other rooms need of a memory's database, and no more; a file and a server both offer it.

Most modules here only read rows and write them in transactions, in SQL that SQLite and PostgreSQL
both speak:

- ``RETURNING id`` gives the id of a new row, ``ON CONFLICT`` says what becomes of one that is there
  already, ``count(*) FILTER (WHERE ...)`` counts what is true; ``"end"`` stands in quotes.
- Parameters are marked ``?``, in this order. No literal has a question mark in it.
- Rows are read by name and by place.

The few things for which there are no common words are asked of the database's `Dialect`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clara_mlx.errors import StoreError
from clara_mlx.store.connection import Connection
from clara_mlx.store.dialect import Dialect

#: Seconds after which a search goes on without those memories that still wait beside a file. It
#: takes 1 to 7 ms to move a text of 12 kB, so that is a thousand texts at least (bench/hostile.py
#: S5b).
SEARCH_SECONDS = 10.0


class HandleTaken(StoreError):
    """A memory has the handle that a new one was to get."""

    def __init__(self, path: object, handle: str | None = None) -> None:
        which = "with this handle" if handle is None else repr(handle)
        super().__init__(
            f"{path}: there is a memory {which} already, and nothing was kept; choose another "
            "handle, or none, to get a new one"
        )


class DatabaseUrl(str):
    """The URL of a server's database, as a name for it; it has no password."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The database's own name, for lists."""
        return urlsplit(self).path.strip("/") or "postgresql"


class Database(ABC):
    """Where a memory's rows are; safe to use from several threads.

    Attributes:
        path: Its name in messages: the path of a file, or the URL of a server. `open_store` opens
            it again by this name.
        dialect: What its SQL has words of its own for.
        removed: How often this process removed something from it.
    """

    path: Path | DatabaseUrl
    dialect: Dialect
    removed: int

    @property
    @abstractmethod
    def obstacle(self) -> str | None:
        """Why it can only be read; None if it can be written."""

    @abstractmethod
    def check_writable(self) -> None:
        """Check that it can be written.

        Raises:
            StorageFailed: It can't; the message names the cause.
        """

    @abstractmethod
    def errors(self) -> AbstractContextManager[None]:
        """Turn the driver's errors in a block into a StoreError that says what to do."""

    @abstractmethod
    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Rows of a query; in a transaction of this thread, as that sees them."""

    @abstractmethod
    def write(
        self, *, synced: bool = True, alone: bool = False
    ) -> AbstractContextManager[Connection]:
        """A transaction that writes: all of it or nothing.

        Args:
            synced: Whether it survives a loss of power from the moment at which it is done.
            alone: Whether it removes or remakes what other transactions may rely on, so that no
                other one must write meanwhile. In a file that is always so.
        """

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Connection]:
        """A transaction that reads the database as it is at one moment, whoever writes."""

    def check_new(self, connection: Connection, handle: str) -> None:
        """Check that no memory has a handle, in a transaction that writes.

        Raises:
            HandleTaken: One has it.
        """
        sql = "SELECT 1 FROM memories WHERE handle = ?"
        if connection.execute(sql, (handle,)).fetchone() is not None:
            raise HandleTaken(self.path, handle)

    @abstractmethod
    def removals(self) -> object:
        """A value that stays equal while nothing is removed, by whomever."""

    @abstractmethod
    def size(self) -> int:
        """The bytes that it takes, as its disk has them."""

    @abstractmethod
    def used_bytes(self) -> int:
        """The bytes of it that are in use; those that wait to be used again are not."""

    @abstractmethod
    def vacuum(self) -> tuple[int, int]:
        """Give unused bytes back to the disk; returns `size` before and after."""

    @abstractmethod
    def damage(self, *, quick: bool = False) -> list[str]:
        """What the database itself finds damaged in its tables and indexes.

        Args:
            quick: Whether it is enough to know if there is any, and no index needs to be looked at.
        """

    @abstractmethod
    def empty_traces(self) -> None:
        """After a removal, clean what the database keeps of it, as far as that can be done now.

        Never fails: a warning says what is left to be cleaned, and how.
        """

    @abstractmethod
    def close(self) -> None:
        """Close all connections; whatever is asked afterwards is refused."""

    # -- what waits beside a file ----------------------------------------------------------------

    def new_ones_wait(self) -> bool:
        """Whether new memories have to wait beside the database; see `settled_file`."""
        return False

    def let_wait(self, record: bytes) -> None:
        """Let a memory wait, safe on the disk."""
        raise NotImplementedError

    def number_waiting(self) -> int:
        """Number of memories that wait."""
        return 0

    def waiting_record(self, handle: str) -> bytes | None:
        """What was written down of a memory that waits; None if none with this handle does."""
        return None

    def bring(self, handles: Collection[str]) -> None:  # noqa: B027 - nothing waits by default
        """See to it that these memories are in the database, if they wait beside it."""

    def settle(self, seconds: float | None = None) -> None:  # noqa: B027
        """See to it that all memories are in it, as far as ``seconds`` are enough."""

    def settle_soon(self) -> None:  # noqa: B027
        """Let what waits be moved into it when nothing is in the way."""

    def log_is_held_up(self) -> bool:
        """Whether a reader keeps what is written in a log that grows; never so on a server."""
        return False
