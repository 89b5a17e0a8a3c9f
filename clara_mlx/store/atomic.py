"""Files and folders that are complete or absent: written beside their place, then renamed.

A name appears only when everything under it is on the disk. The next process removes what one that
died has left behind (`clear_leftovers`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = "partial"  # being written
_REPLACED = "replaced"  # the folder whose place a finished one is taking


@contextmanager
def partial_file(to: Path, *, private: bool = False) -> Iterator[Path]:
    """A new empty file beside ``to``, which takes its name when the block ends without an error.

    Args:
        to: Name of the finished file; an earlier file with this name is replaced.
        private: Only the file's owner may read and write it, as with a memory.

    Raises:
        OSError: the file can't be written, synced or renamed; ``to`` is as it was before.
    """
    partial = _sibling(to, _PARTIAL)
    partial.unlink(missing_ok=True)
    try:
        # open() also creates files with 0o666 less the umask.
        os.close(
            os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        )
        yield partial
        sync(partial)
        partial.replace(to)
        sync(to.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(to: Path, text: str) -> None:
    """Write a UTF-8 file that is complete or, if anything fails, as it was before."""
    with partial_file(to) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def partial_folder(to: Path) -> Iterator[Path]:
    """A working folder beside ``to``; removed at the end unless `put_in_place` renamed it."""
    folder = _sibling(to, _PARTIAL)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, to: Path) -> None:
    """Sync a finished folder to the disk and give it its name; an earlier one is replaced."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
    replaced = _sibling(to, _REPLACED)
    if to.exists():
        to.rename(replaced)
    folder.rename(to)
    sync(to.parent)
    _remove(replaced)


def clear_leftovers(to: Path) -> None:
    """Make the parent of ``to``, and remove what dead processes have left there."""
    to.parent.mkdir(parents=True, exist_ok=True)
    for replaced in to.parent.glob(f".{to.name}.{_REPLACED}-*"):
        if _is_abandoned(replaced) and not to.exists():
            replaced.rename(to)  # the process died between the two renames of put_in_place
    for state in (_PARTIAL, _REPLACED):
        for path in to.parent.glob(f".{to.name}.{state}-*"):
            if _is_abandoned(path):
                _remove(path)


def _remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link, but not what that leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sibling(to: Path, state: str) -> Path:
    return to.parent / f".{to.name}.{state}-{os.getpid()}"


def _is_abandoned(path: Path) -> bool:
    """Whether the process that made a sibling, named by its id, is no longer alive."""
    pid = path.name.rpartition("-")[2]
    return not pid.isdigit() or int(pid) == os.getpid() or not is_alive(int(pid))


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True
