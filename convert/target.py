"""The place of a model folder: whether it may be written there, and whether there is room."""

from __future__ import annotations

import shutil
from pathlib import Path

from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import LAYOUT


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
