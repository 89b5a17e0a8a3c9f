"""Who may read and write a memory file: its owner alone, however the file and its folder came.

Nothing here opens a file that exists. SQLite's locks are POSIX locks, and closing any descriptor of
a file drops all of them that the process has on it (sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from pathlib import Path

from clara_mlx.errors import StorageFailed, StoreError, reason

logger = logging.getLogger(__name__)

# Mode bits: what a group's members and all others may do; what either may write.
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def named(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a memory file, however it was given.

    Raises:
        StoreError: It can't be the path of a file.
    """
    if not isinstance(path, str | bytes | os.PathLike) or not os.fspath(path):
        raise StoreError(f"a memory file is named by a string or a Path, not {ascii(path)[:80]}")
    text = os.fsdecode(path)
    if "\0" in text:
        raise StoreError(f"{ascii(text)[:80]}: no file can have a NUL in its name")
    return Path(text).expanduser().absolute()


def secure(path: Path) -> bool:
    """Make a memory file if there is none, and see to it that only its owner can use it.

    A link is followed. The folders that are missing are made, for the owner alone. A file that
    others could use becomes the owner's alone, with its log and the log's index.

    Returns:
        Whether it was made.

    Raises:
        StorageFailed: It is no regular file, or can't be made or changed.
        StoreError: It is another user's, and others can write to it, too.
    """
    real = Path(os.path.realpath(path))
    try:
        make_private_folder(real.parent)
        made = not os.path.lexists(real) and _make(real)
        status = real.stat()
        if not stat.S_ISREG(status.st_mode):
            raise StorageFailed(f"{path}: can't be opened as a memory: not a regular file")
        if status.st_mode & _OTHERS:
            _mend(path, real, status)
        _tell_of_open_folder(path, real.parent)
        return made
    except OSError as error:
        # A descriptor too few, or a full disk; a file that may not be used stays so.
        transient = not isinstance(error, PermissionError | NotADirectoryError | FileExistsError)
        raise StorageFailed(
            f"{path}: can't be opened as a memory: {reason(error)}", transient=transient
        ) from error


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for the owner alone."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        try:
            folder.mkdir(mode=stat.S_IRWXU)
        except FileExistsError:  # another process was faster, unless it is no folder
            if not folder.is_dir():
                raise


def _make(real: Path) -> bool:
    """Make an empty file, unless another process is faster; it has no locks that could be lost."""
    try:
        os.close(os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR))
    except FileExistsError:
        return False
    return True


def remove_empty(path: Path) -> None:
    """Remove a file that was made (`secure`) and could not be opened, if nothing is in it."""
    real = Path(os.path.realpath(path))
    with contextlib.suppress(OSError):
        if real.stat().st_size == 0:
            for name in (real, Path(f"{real}-wal"), Path(f"{real}-shm")):
                name.unlink(missing_ok=True)


def _mend(path: Path, real: Path, status: os.stat_result) -> None:
    """Take away what others may do with a file, its log and the log's index."""
    if status.st_uid != os.geteuid():
        if status.st_mode & _OTHERS_WRITE:
            raise StoreError(
                f"{path}: it is another user's, and others can write to it, so what it says can't "
                "be trusted; have its owner run: chmod 600"
            )
        return
    try:
        for name in (real, *(Path(f"{real}-{what}") for what in ("wal", "shm", "arrivals"))):
            if name.is_file() and not name.is_symlink():
                name.chmod(stat.S_IMODE(name.stat().st_mode) & ~_OTHERS)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        logger.warning("%s: others can read it, and its file system is read-only", path)
        return
    logger.warning("%s: others could read or write it; now only its owner can", path)


def _tell_of_open_folder(path: Path, folder: Path) -> None:
    """Warn of a folder where others could put a file of theirs in the memory's place.

    It is not refused, because volumes of containers are often so.
    """
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        logger.warning(
            "%s: all users can write to its folder, so the file can be replaced; run: "
            "chmod go-w %s",
            path,
            folder,
        )
