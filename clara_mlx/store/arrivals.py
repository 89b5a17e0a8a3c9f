"""Memories that wait beside the file while a reader keeps its write-ahead log from starting anew.

As long as a reader stays open, SQLite can only add to the log, and each commit adds every page that
it touches, which is many times what was remembered. So while a long log is held up, what is
remembered is added to ``<file>-arrivals`` instead, and moved into the file later, many at a time
(`settled_file`). Until then it can be read here by its handle.

Whoever adds to this file or moves what is in it holds the memory file's write lock, which makes
plain reading and writing safe. The memory file says which arrivals are its own, by the id in their
first line, and up to which byte it has taken them over, in the transaction that does. It also names
those beyond that byte which were taken over before their turn.

Reading needs no lock: nothing that was added changes, and a file that is removed can be read as
long as it is open.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from clara_mlx.errors import StorageFailed, reason
from clara_mlx.store.atomic import sync
from clara_mlx.store.connection import Connection
from clara_mlx.store.newcomer import handle_of

logger = logging.getLogger(__name__)

# The first line: what the file is, and its id. Records follow, each with its length and CRC-32.
_MAGIC = b"clara-mlx arrivals 1 "
_ID_DIGITS = 32
_HEADER = len(_MAGIC) + _ID_DIGITS + 1
_FRAME = struct.Struct("<II")

# The row of `meta` that has the id of the arrivals, the byte up to which they were taken over, and
# where the records begin that were taken over before their turn.
_KEY = "arrivals"


@dataclass(frozen=True)
class _Taken:
    """What the memory file says of its arrivals."""

    id: str | None  # None: it never had any
    end: int = _HEADER  # the byte up to which they were taken over
    early: tuple[int, ...] = ()  # where the records beyond it begin that were taken over, too


@dataclass
class _Index:
    """The records of one file of arrivals by the handles of their memories, as far as read."""

    id: str
    end: int
    starts: dict[str, int] = field(default_factory=dict)  # where the record of a handle begins


class Arrivals:
    """The arrivals of a memory file.

    `exist`, `waiting` and `record` need no lock; all other methods need the file's write lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(f"{os.path.realpath(path)}-arrivals")
        self._known: tuple[str, int] | None = None  # id and end of the file as this process left it
        self._index: _Index | None = None
        self._lock = threading.Lock()  # of the index

    def exist(self) -> bool:
        """Whether there is a file of arrivals."""
        return os.path.exists(self.path)

    def waiting(self, connection: Connection) -> dict[str, int]:
        """The handles of the memories that wait, in their order, and where their records begin."""
        with self._errors(), self._opened(connection) as (file, taken):
            return self._starts(file, taken)

    def record(self, connection: Connection, handle: str) -> bytes | None:
        """The record of a memory that waits; None if none with this handle does."""
        with self._errors(), self._opened(connection) as (file, taken):
            start = self._starts(file, taken).get(handle)
            found = None if start is None else next(_records(file, start), None)
            return found and found[0]

    @contextmanager
    def _opened(self, connection: Connection) -> Iterator[tuple[int, _Taken]]:
        """The file, to read in it, and what was taken over; a file without records if it is none.

        The file is opened first, as the memory file then says no more than what is in it; unless
        both were replaced in between, which their ids show.
        """
        for last in (False, False, True):
            try:
                file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                file = os.open(os.devnull, os.O_RDONLY)
            try:
                taken = _read_taken(connection)
                own = taken.id is not None and os.pread(file, _HEADER, 0) == _first_line(taken.id)
                if own or last or not self.exist():
                    yield file, taken
                    return
            finally:
                os.close(file)

    def _starts(self, file: int, taken: _Taken) -> dict[str, int]:
        """By handle, where the records begin that wait in a file."""
        if taken.id is None or os.pread(file, _HEADER, 0) != _first_line(taken.id):
            return {}
        with self._lock:
            index = self._index
            if index is None or index.id != taken.id or index.end < taken.end:
                index = self._index = _Index(taken.id, taken.end)
            for record, end in _records(file, index.end):
                index.starts[handle_of(record)] = index.end
                index.end = end
            if any(start < taken.end for start in index.starts.values()):
                index.starts = {h: s for h, s in index.starts.items() if s >= taken.end}
            return {h: start for h, start in index.starts.items() if start not in taken.early}

    def add(self, connection: Connection, record: bytes) -> int:
        """Add a record, which is on the disk when this returns.

        Returns:
            The bytes of all that wait. 0 if the record was not added: the caller has to commit its
            transaction, which has an id for a new file, and to call this again in another one.

        Raises:
            StorageFailed: The disk is full or can't be written; nothing was added.
        """
        with self._errors():
            taken = _read_taken(connection)
            file = self._open(taken)
            if file is None and (taken.id is None or taken.end != _HEADER or taken.early):
                _note(connection, _Taken(secrets.token_hex(_ID_DIGITS // 2)))
                return 0
            assert taken.id is not None
            if file is None:
                file = self._make(taken.id)
            try:
                if self._known is None or self._known != (taken.id, os.fstat(file).st_size):
                    ends = (end for _, end in _records(file, taken.end))
                    self._known = taken.id, max(ends, default=taken.end)
                end = self._known[1]
                _write(file, end, _FRAME.pack(len(record), zlib.crc32(record)) + record)
                end += _FRAME.size + len(record)
                self._known = taken.id, end
            finally:
                os.close(file)
            return end - taken.end

    def take(self, connection: Connection, insert: Callable[[bytes], bool]) -> None:
        """Take over records in their order, as long as ``insert`` says that there is time for more.

        They count as taken over once the caller commits. If none is left, the file is removed.
        """
        with self._errors():
            taken = _read_taken(connection)
            file = self._open(taken)
            if file is None:
                return
            reached = start = taken.end
            try:
                for record, end in _records(file, start):
                    more = start in taken.early or insert(record)
                    reached = start = end
                    if not more:
                        break
            finally:
                os.close(file)
            if reached > taken.end:
                early = tuple(start for start in taken.early if start >= reached)
                _note(connection, _Taken(taken.id, reached, early))
            else:
                self.path.unlink()

    def take_early(
        self, connection: Connection, handles: Collection[str], insert: Callable[[bytes], None]
    ) -> None:
        """Take over the records of some memories before their turn, once the caller commits."""
        with self._errors():
            taken = _read_taken(connection)
            file = self._open(taken)
            if file is None:
                return
            try:
                starts = self._starts(file, taken)
                early = [starts[handle] for handle in handles if handle in starts]
                for start in early:
                    for record, _ in islice(_records(file, start), 1):
                        insert(record)
            finally:
                os.close(file)
            if early:
                _note(connection, _Taken(taken.id, taken.end, (*taken.early, *early)))

    def _open(self, taken: _Taken) -> int | None:
        """Open the file if it has this id; one with another id is another memory file's.

        That may be one that was deleted, or restored from a backup: it is set aside.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        line = os.pread(file, _HEADER, 0)
        own = taken.id is not None and line == _first_line(taken.id)
        if own and os.fstat(file).st_size >= taken.end:
            return file
        os.close(file)
        aside = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}")
        self.path.rename(aside)
        logger.warning("%s: not of this memory file; it is %s now", self.path, aside.name)
        return None

    def _make(self, id: str) -> int:
        """Make the file with its first line, at once or not at all."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNERS)
        try:
            _write(file, 0, _first_line(id))
            sync(self.path.parent)
        except BaseException:
            os.close(file)
            self.path.unlink()
            raise
        return file

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            text = "the disk is full; nothing of this step was kept" if full else reason(error)
            raise StorageFailed(f"{self.path}: {text}", transient=True) from error


# The owner of the memory file, and nobody else, reads and writes its arrivals.
_OWNERS = stat.S_IRUSR | stat.S_IWUSR


def _first_line(id: str) -> bytes:
    return _MAGIC + id.encode() + b"\n"


def _records(file: int, start: int) -> Iterator[tuple[bytes, int]]:
    """The records from a byte on, each with its end; a last one that is cut off is left out."""
    while len(frame := os.pread(file, _FRAME.size, start)) == _FRAME.size:
        length, crc = _FRAME.unpack(frame)
        record = os.pread(file, length, start + _FRAME.size)
        # No record is empty; zeros are what some file systems leave after a crash.
        if not record or len(record) != length or zlib.crc32(record) != crc:
            return
        start += _FRAME.size + length
        yield record, start


def _write(file: int, start: int, content: bytes) -> None:
    """Write all of a content as the file's end, and wait until it is on the disk; or nothing."""
    os.ftruncate(file, start)  # a process that died may have left something unfinished
    try:
        done = 0
        while done < len(content):
            done += os.pwrite(file, memoryview(content)[done:], start + done)
        os.fsync(file)
    except OSError:
        os.ftruncate(file, start)
        raise


def _read_taken(connection: Connection) -> _Taken:
    """What the memory file says of its arrivals."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
    if row is None:
        return _Taken(None)
    id, end, *early = row[0].split()
    return _Taken(id, int(end), tuple(map(int, early)))


def _note(connection: Connection, taken: _Taken) -> None:
    value = " ".join(map(str, (taken.id, taken.end, *taken.early)))
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_KEY, value))
