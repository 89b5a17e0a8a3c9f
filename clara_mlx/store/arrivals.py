"""Memories that wait beside the file while a reader keeps its write-ahead log from starting anew.

As long as a reader stays open, SQLite can only add to the log, and each commit adds every page that
it touches, which is many times what was remembered. So while a long log is held up, what is
remembered is added to ``<file>-arrivals`` instead, and moved into the file later, many at a time:
before anything else is read or written, and when too many wait.

Whoever adds to this file or moves what is in it holds the memory file's write lock, which makes
plain reading and writing safe. The memory file says which arrivals are its own, by the id in their
first line, and up to which byte it has taken them over, in the transaction that does.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clara_mlx.errors import StorageFailed, reason
from clara_mlx.store.atomic import sync
from clara_mlx.store.driver import Connection

logger = logging.getLogger(__name__)

# The first line: what the file is, and its id. Records follow, each with its length and CRC-32.
_MAGIC = b"clara-mlx arrivals 1 "
_ID_DIGITS = 32
_HEADER = len(_MAGIC) + _ID_DIGITS + 1
_FRAME = struct.Struct("<II")

# The row of `meta` that has the id of the arrivals, and the byte up to which they were taken over.
_KEY = "arrivals"


class Arrivals:
    """The arrivals of a memory file. All methods but `exist` need its write lock."""

    def __init__(self, path: Path) -> None:
        self.path = Path(f"{os.path.realpath(path)}-arrivals")
        self._known: tuple[str, int] | None = None  # id and end of the file as this process left it

    def exist(self) -> bool:
        """Whether there is a file of arrivals."""
        return os.path.exists(self.path)

    def add(self, connection: Connection, record: bytes) -> int:
        """Add a record, which is on the disk when this returns.

        Returns:
            The bytes of all that wait. 0 if the record was not added: the caller has to commit its
            transaction, which has an id for a new file, and to call this again in another one.

        Raises:
            StorageFailed: The disk is full or can't be written; nothing was added.
        """
        with self._errors():
            id, taken = _taken(connection)
            file = self._open(id, taken)
            if file is None and (id is None or taken != _HEADER):
                _note(connection, secrets.token_hex(_ID_DIGITS // 2), _HEADER)
                return 0
            assert id is not None
            if file is None:
                file = self._make(id)
            try:
                if self._known is None or self._known != (id, os.fstat(file).st_size):
                    self._known = id, max((end for _, end in _records(file, taken)), default=taken)
                end = self._known[1]
                _write(file, end, _FRAME.pack(len(record), zlib.crc32(record)) + record)
                end += _FRAME.size + len(record)
                self._known = id, end
            finally:
                os.close(file)
            return end - taken

    def take(self, connection: Connection, most: int) -> list[bytes]:
        """Up to ``most`` records, which count as taken over once the caller commits.

        If none is left, the file is removed.
        """
        with self._errors():
            id, taken = _taken(connection)
            file = self._open(id, taken)
            if file is None or id is None:
                return []
            records: list[bytes] = []
            try:
                for record, end in _records(file, taken):
                    records.append(record)
                    taken = end
                    if len(records) == most:
                        break
            finally:
                os.close(file)
            if records:
                _note(connection, id, taken)
            else:
                self.path.unlink()
            return records

    def _open(self, id: str | None, taken: int) -> int | None:
        """Open the file if it has this id; one with another id is another memory file's.

        That may be one that was deleted, or restored from a backup: it is set aside.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        line = os.pread(file, _HEADER, 0)
        if id is not None and line == _first_line(id) and os.fstat(file).st_size >= taken:
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


def _taken(connection: Connection) -> tuple[str | None, int]:
    """The id of the file's arrivals, if it had any, and the byte up to which it took them over."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
    if row is None:
        return None, _HEADER
    id, _, taken = row[0].partition(" ")
    return id, int(taken)


def _note(connection: Connection, id: str, taken: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_KEY, f"{id} {taken}")
    )
