"""Opening a file that can't be written, or only partly read; and noticing one that is gone.

A memory on a full disk, on a read-only file system or cut off in the middle can still give back
what it holds. Whoever opens it so learns why nothing can be written.
"""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from clara_mlx.errors import StorageFailed
from clara_mlx.store.driver import Connection, connect, is_damage, is_unwritable

logger = logging.getLogger(__name__)

# Bytes that must be free for SQLite to open a file: its log's index has this many.
_LEAST_FREE = 32 << 10


@dataclass(frozen=True)
class Access:
    """How a memory file can be used.

    Attributes:
        obstacle: Why it can't be written; None if it can.
        immutable: Whether it is read without locks, as nobody can write it.
        salvage: Whether it is damaged, and read as far as possible.
    """

    obstacle: str | None = None
    immutable: bool = False
    salvage: bool = False
    full: bool = False

    def connect(self, path: Path) -> Connection:
        """Open a connection of this kind."""
        return connect(path, immutable=self.immutable, salvage=self.salvage)


def find_access(path: Path) -> tuple[Access, Connection]:
    """Open a file in the best way that it allows, and give the first connection.

    Raises:
        StorageFailed: It can't even be read; the message names the cause.
    """
    obstacle, full = _find_obstacle(path)
    access = Access(obstacle, full=full)
    first: StorageFailed | None = None
    while True:
        try:
            connection = access.connect(path)
            break
        except StorageFailed as error:
            first = first or error
            if is_damage(error.__cause__) and not access.salvage:
                access = replace(access, obstacle="it is damaged", salvage=True)
            elif obstacle and is_unwritable(error.__cause__) and not access.immutable:
                if _size(Path(f"{os.path.realpath(path)}-wal")):
                    raise StorageFailed(
                        f"{path}: can't be opened as a memory: {obstacle}, and what is in its log "
                        f"({path.name}-wal) can only be read where it can be written; copy both "
                        "elsewhere and open the copy",
                        transient=full,
                    ) from error
                access = replace(access, immutable=True)
            else:
                raise first from first.__cause__
    if full and not (access.immutable or access.salvage):
        return Access(), connection  # what is written may fit into its log
    if access.salvage:
        logger.warning(
            "%s: it is damaged; `clara-mlx export` saves what can be read, and `clara-mlx verify` "
            "says what can't",
            path,
        )
    return access, connection


def _find_obstacle(path: Path) -> tuple[str | None, bool]:
    """What keeps a file from being written, if anything can be seen; and whether the disk is full.

    Root may write whatever the modes say, but not on a file system that is read-only.
    """
    real = Path(os.path.realpath(path))
    try:
        system = os.statvfs(real)
    except OSError:
        return None, False
    if system.f_flag & os.ST_RDONLY:
        return "its file system is read-only", False
    if system.f_bavail * system.f_frsize < _LEAST_FREE:
        return "no space left on its disk", True
    if not os.access(real, os.W_OK):
        return "this user may not write it", False
    if not os.access(real.parent, os.W_OK):
        return "this user may not write in its folder", False
    return None, False


def cause(path: Path, text: str) -> str:
    """An error of SQLite that says little, such as "disk I/O error", with what can be seen."""
    obstacle, _ = _find_obstacle(path)
    return f"{obstacle} ({text})" if obstacle else text


class Place:
    """A file's identity while it is open: it must not be written where nobody finds it again.

    Args:
        path: The file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = Path(f"{os.path.realpath(path)}-wal")
        self._file = _identity(path)
        self._log_file: tuple[int, int] | None = None

    def note_log(self) -> None:
        """Note the log's identity; the file is open, so it has one."""
        self._log_file = _identity(self._log)

    def check(self) -> None:
        """Check that the file is where it was opened.

        Raises:
            StorageFailed: It was removed, or another one is there now.
        """
        now = _identity(self._path)
        if now != self._file:
            self.set_log_aside()
            what = "was removed" if now is None else "was replaced by another file"
            raise StorageFailed(
                f"{self._path}: the file {what} while it was open, so nothing more is written to "
                "it; close the memory and open it again"
            )

    def set_log_aside(self) -> None:
        """Rename the log of a file that is gone, lest SQLite applies it to one in its place."""
        own = self._log_file is not None and _identity(self._log) == self._log_file
        if not own or _identity(self._path) == self._file:
            return
        aside = self._log.with_name(f"{self._log.name}.{secrets.token_hex(4)}")
        self._log.rename(aside)
        Path(f"{str(self._log).removesuffix('-wal')}-shm").unlink(missing_ok=True)
        logger.warning(
            "%s: the file was removed or replaced while it was open; its log is %s now",
            self._path,
            aside.name,
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and the inode of a file; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
