"""The connections and transactions of a memory file, and its errors in plain words."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clara_mlx.errors import Busy, Closed, ReadOnly, StorageFailed, StoreError, reason
from clara_mlx.store import sketch_table
from clara_mlx.store.access import Place, cause, find_access
from clara_mlx.store.driver import (
    BUSY_SECONDS,
    LOG_BYTES,
    Connection,
    driver,
    is_busy,
    is_full,
    is_impossible,
    is_outdated,
    is_transient,
    is_unwritable,
    transaction,
)
from clara_mlx.store.migrations import migrate
from clara_mlx.store.permissions import named, remove_empty, secure
from clara_mlx.store.protocol import Database
from clara_mlx.store.sqlite_dialect import SQLITE

logger = logging.getLogger(__name__)


class File(Database):
    """A memory file, brought up to date; each thread has a connection of its own.

    Raises:
        StoreError: The file is of a newer format, another program's, damaged, or locked.
    """

    path: Path
    dialect = SQLITE

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = named(path)
        made = secure(self.path)
        self._log = f"{os.path.realpath(self.path)}-wal"
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[tuple[threading.Thread, Connection]] = []
        self._closed = False
        #: How often this process removed something from the file.
        self.removed = 0
        self._place = Place(self.path)
        try:
            self._access, connection = find_access(self.path)
            self._add(connection)
            self._place = Place(self.path)  # opening it can change its inode, on an overlay
            with self.errors():
                migrate(self.connection, self.path, obstacle=self.obstacle)
            self._place.note_log()
            logger.debug("%s: opened%s", self.path, ", and made" if made else "")
        except BaseException as error:
            self.close()
            if made and not is_busy(error.__cause__):
                remove_empty(self.path)
            raise

    @property
    def obstacle(self) -> str | None:
        """Why the file can only be read; None if it can be written."""
        return self._access.obstacle

    @property
    def connection(self) -> Connection:
        """This thread's connection, opened on first use.

        Raises:
            Closed: The file was closed.
            StorageFailed: It can't be opened, or another file is in its place.
        """
        if self._closed:
            raise Closed(f"{self.path}: the memory is closed; open it again")
        if not hasattr(self._local, "connection"):
            self._place.check()
            self._add(self._access.connect(self.path))
        return self._local.connection

    def _add(self, connection: Connection) -> None:
        """Make a connection this thread's, and close those of threads that have ended."""
        self._local.connection = connection
        with self._lock:
            alive = [pair for pair in self._connections if pair[0].is_alive()]
            for thread, ended in self._connections:
                if not thread.is_alive():
                    ended.close()
            self._connections = [*alive, (threading.current_thread(), connection)]

    def close(self) -> None:
        """Close the connections of all threads; whatever is asked afterwards is refused."""
        self._closed = True
        self._place.set_log_aside()
        with self._lock:
            for _, connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def check_writable(self) -> None:
        """Check that the file can be written, and is still the one that was opened.

        Raises:
            StorageFailed: It can't, or it is not; the message names the cause.
        """
        if self._closed:
            raise Closed(f"{self.path}: the memory is closed; open it again")
        if self.obstacle:
            raise ReadOnly(
                f"{self.path}: it can be read, but not written: {self.obstacle}",
                transient=self._access.full,
            )
        self._place.check()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the driver's errors into a StoreError that says what to do."""
        module = driver()
        try:
            yield
        except UnicodeEncodeError as error:
            raise StoreError(f"source, session and filters must be Unicode: {error}") from error
        except OverflowError as error:  # a number of more than 64 bits
            raise StoreError(f"{self.path}: SQLite can't hold this value: {error}") from error
        except module.Error as error:
            if is_impossible(error):
                raise StoreError(f"the memory can't do this: {error}") from error
            if is_busy(error):
                raise Busy(
                    f"{self.path}: another process has been writing for too long; try again",
                    transient=True,
                ) from error
            if is_full(error):
                text = "the disk is full (no space left); nothing of this step was kept"
            elif is_unwritable(error):
                text = cause(self.path, str(error))
            elif isinstance(error, module.OperationalError):
                text = str(error)
            else:
                text = f"{error}; `clara-mlx verify` says what can still be read"
            raise StorageFailed(f"{self.path}: {text}", transient=is_transient(error)) from error

    @contextmanager
    def write(self, *, synced: bool = True, alone: bool = False) -> Iterator[Connection]:
        """A transaction that writes: all of it or nothing, and only one at a time.

        Args:
            synced: Whether it survives a loss of power from the moment at which it is done. If not,
                it survives the end of this process at once, and a loss of power when the next
                synced one is done, which writes down all before it.
            alone: As it is in any case.
        """
        self.check_writable()
        with self.errors(), self._syncing(synced), transaction(self.connection) as connection:
            yield connection
            connection.execute("COMMIT")
        self.log_is_held_up()

    @contextmanager
    def _syncing(self, synced: bool) -> Iterator[None]:
        """Have the commits in a block wait for the disk, as they always do, or not."""
        if not synced:
            self.connection.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            if not synced:
                self.connection.execute("PRAGMA synchronous = FULL")

    def removals(self) -> tuple[object, ...]:
        """A value that stays equal while nothing is removed from the file, by whomever.

        It also changes when another thread or process writes, and differs between threads.
        """
        connection = self.connection
        with self.errors():
            row = connection.execute("PRAGMA data_version").fetchone()
        return connection, row[0], self.removed

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A transaction that reads the file as it is at one moment, whoever writes."""
        with self.errors(), transaction(self.connection, "BEGIN") as connection:
            yield connection

    def log_is_held_up(self) -> bool:
        """Whether the write-ahead log is long and a reader keeps it so; else it is emptied if long.

        Waits for nobody, and never fails: whatever was written is safe in the log.
        """
        if _size(self._log) <= LOG_BYTES:
            return False
        try:
            with self.impatience() as connection:
                return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        except driver().Error:  # the disk is full, for example
            return True

    @contextmanager
    def impatience(self) -> Iterator[Connection]:
        """Wait for no other connection in a block: what needs one fails at once."""
        connection = self.connection
        try:
            connection.execute("PRAGMA busy_timeout = 0")
            yield connection
        finally:
            connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS:.0f}")

    def empty_log(self) -> None:
        """Move the write-ahead log into the file, which leaves the log empty.

        Waits for readers and writers as long as a writer would (`driver.BUSY_SECONDS`).
        """
        with self.errors():
            rows = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if rows[0][0]:
            logger.warning(
                "%s-wal: other processes kept reading, so forgotten text may still be in it; it is "
                "removed when they are done and `clara-mlx vacuum` runs, or when the last one "
                "closes the file",
                self.path,
            )

    def empty_traces(self) -> None:
        """Empty the log, which may still hold what was removed."""
        try:
            self.empty_log()
        except StorageFailed as error:
            logger.warning("forgotten text may still be in the log: %s", error)

    def vacuum(self) -> tuple[int, int]:
        """Give free pages back to the disk; returns the file's bytes before and after."""
        before = self.size()
        with self.write() as connection:
            for row in connection.execute("SELECT id, sketch_bits FROM spaces").fetchall():
                sketch_table.rebuild(connection, row["id"], row["sketch_bits"])
            self.dialect.finish_removal(connection)
        with self.errors():
            self.connection.execute("VACUUM")
        self.empty_log()
        return before, self.size()

    def damage(self, *, quick: bool = False) -> list[str]:
        """What SQLite finds damaged, and what its full-text indexes do; see `Database.damage`."""
        if quick:
            return [row[0] for row in self.read("PRAGMA quick_check(1)") if row[0] != "ok"]
        rows = self.read("PRAGMA integrity_check")
        found = [f"SQLite: {row[0]}" for row in rows if row[0] != "ok"]
        rows = self.read("PRAGMA foreign_key_check")
        found += [f"{row[0]} row {row[1]} refers to a missing {row[2]}" for row in rows]
        # To check an index counts as writing.
        for table in () if self.obstacle else ("chunk_text", "memory_text"):
            try:
                self.read(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 0)")
            except StoreError as error:
                found.append(f"full-text index: {error}")
        return found

    def used_bytes(self) -> int:
        """The bytes of the pages that are in use."""
        pages, free, size = (
            self.read(f"PRAGMA {name}")[0][0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def size(self) -> int:
        """The bytes of the file, without its log.

        Raises:
            StorageFailed: It is not there any more.
        """
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise StorageFailed(
                f"{self.path}: {reason(error)}; it was there when it was opened"
            ) from error

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Rows of a query."""
        with self.errors():
            try:
                return self.connection.execute(sql, parameters).fetchall()
            except driver().OperationalError as error:
                if not is_outdated(error):
                    raise
                return self.connection.execute(sql, parameters).fetchall()


def _size(path: str) -> int:
    """The bytes of a file; 0 if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
