"""The store of one machine: `Originals` in an SQLite file."""

from __future__ import annotations

import os

from clara_mlx.store.originals import Originals
from clara_mlx.store.settled_file import SettledFile


class Store(Originals, SettledFile):
    """A memory file, opened; safe to use from several threads, each with its own connection.

    Raises:
        StoreError: The file is of a newer format, another program's, damaged, or locked.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        SettledFile.__init__(self, path)
        Originals.__init__(self)
