"""A folder that is complete or not there: written beside its place, synced, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import LAYOUT

_PARTIAL = "partial"  # a folder being written
_REPLACED = "replaced"  # the folder that a finished one is taking the place of


def _sibling(to: Path, state: str) -> Path:
    return to.parent / f".{to.name}.{state}-{os.getpid()}"


def check_target(to: Path, force: bool) -> None:
    """Refuse a place that holds something else, or a model folder without ``force``."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / LAYOUT.clara).is_file():
        raise CheckpointError(f"{to}: exists and is not a model folder; choose another --to")
    if not force:
        raise CheckpointError(f"{to}: exists; replace it with --force, or choose another --to")


def check_space(parent: Path, nbytes: int) -> None:
    """Refuse to start what the disk can't hold."""
    needed = nbytes + (64 << 20)  # tokenizer, index and the file system's own needs
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise CheckpointError(
            f"{parent}: the model folder needs {needed / 1e9:.1f} GB, "
            f"but only {free / 1e9:.1f} GB are free"
        )


def clear_leftovers(to: Path) -> None:
    """Make the parent folder, and tidy up what runs left there that are no longer alive."""
    to.parent.mkdir(parents=True, exist_ok=True)
    for folder in to.parent.glob(f".{to.name}.{_REPLACED}-*"):
        if _is_abandoned(folder) and not to.exists():
            folder.rename(to)  # the run died between the two renames of put_in_place
    for state in (_PARTIAL, _REPLACED):
        for folder in to.parent.glob(f".{to.name}.{state}-*"):
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    pid = folder.name.rpartition("-")[2]
    if not pid.isdigit() or int(pid) == os.getpid():
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def partial_folder(to: Path) -> Iterator[Path]:
    """A working folder beside ``to``; removed at the end unless it was put in place."""
    folder = _sibling(to, _PARTIAL)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, to: Path) -> None:
    """Sync a finished folder to the disk and give it its name."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)
    replaced = _sibling(to, _REPLACED)
    if to.exists():
        to.rename(replaced)
    folder.rename(to)
    _sync(to.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
