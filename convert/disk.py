"""What every new folder needs: a free place, enough disk, files written and sources hashed."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.errors import CheckpointError, reason
from clara_mlx.model.folder import LAYOUT

#: What a folder takes beside its weights: tokenizer, index, and the file system's own needs.
OVERHEAD_BYTES = 64 << 20

_HASH_BLOCK = 4 << 20  # bytes


def locate_target(to: str | Path) -> Path:
    """The full path of a folder to be made; a link stands for the place that it leads to.

    Raises:
        CheckpointError: It is a folder that can't be replaced while it is in use, or a link into a
            folder that is not there.
    """
    named = Path(to).expanduser()
    try:
        place = named.resolve()
        # The folder takes its name by a rename, which would pull this one from under its user.
        if place == Path.cwd() or place in Path.cwd().parents:
            raise CheckpointError(
                f"{to}: the folder that this command runs in; name a new one with --to"
            )
        if named.is_symlink() and not place.parent.is_dir():
            raise CheckpointError(
                f"{to}: a link to {place}, whose folder is not there (is its disk connected?)"
            )
        if place.is_mount():
            raise CheckpointError(f"{to}: a disk's own folder; name a new one inside it")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise CheckpointError(f"{to}: {reason(error)}") from error
    return place


def check_target(to: Path, force: bool) -> None:
    """Refuse a place that holds something else, or a model folder without ``force``."""
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / LAYOUT.clara).is_file():
        raise CheckpointError(f"{to}: exists and is not a model folder; choose another --to")
    if not force:
        raise CheckpointError(f"{to}: exists; replace it with --force, or choose another --to")


def check_space(parent: Path, weight_bytes: int) -> None:
    """Refuse to start if the disk can't hold the result."""
    needed = weight_bytes + OVERHEAD_BYTES
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise CheckpointError(
            f"{parent}: the model folder needs {needed / 1e9:.1f} GB, "
            f"but only {free / 1e9:.1f} GB are free"
        )


def save_arrays(path: Path, arrays: dict[str, mx.array]) -> None:
    """Write a safetensors file.

    Raises:
        OSError: The disk is full, or the file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mx.save_safetensors(str(path), arrays, metadata={"format": "mlx"})
    except RuntimeError as error:  # mlx's word for a full disk
        raise OSError(f"{error} ({path.name})") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that people can read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(path: Path, stop: threading.Event | None = None) -> str:
    """SHA-256 of a file; of its beginning only, once ``stop`` is set."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while not (stop and stop.is_set()) and (block := file.read(_HASH_BLOCK)):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def hash_in_background(
    files: Mapping[str, Mapping[str, Path]],
) -> Iterator[Callable[[], dict[str, dict[str, str]]]]:
    """SHA-256 of every file, computed by a thread during the block, which ends the thread.

    ``files`` are by part and name. Yields a function that waits for the hashes and returns them by
    the same.
    """
    stop = threading.Event()

    def hash_all() -> dict[str, dict[str, str]]:
        return {
            part: {name: sha256_of(path, stop) for name, path in named.items()}
            for part, named in files.items()
        }

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(hash_all)
        try:
            yield future.result
        finally:
            stop.set()
