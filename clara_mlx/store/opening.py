"""Opening a memory's database by its name: the path of a file, or the URL of a server."""

from __future__ import annotations

import os
from pathlib import Path

from clara_mlx.errors import StoreError
from clara_mlx.store.originals import Originals
from clara_mlx.store.store import Store

#: What the URL of a PostgreSQL database begins with.
SCHEMES = ("postgresql://", "postgres://")


def is_url(name: object) -> bool:
    """Whether a name is a database's URL, not the path of a file."""
    return isinstance(name, str) and name.startswith(SCHEMES)


def open_store(name: str | os.PathLike[str]) -> Originals:
    """Open a memory's database, or make it.

    Args:
        name: The path of an SQLite file; or ``postgresql://user@host/database``, without a
            password, for the memory that a team shares.

    Raises:
        StoreError: It can't be opened; the message says what to do.
    """
    if not is_url(name):
        return Store(Path(name) if isinstance(name, os.PathLike) else name)
    try:
        from clara_mlx.store.postgres.store import PostgresStore
    except ImportError as error:
        raise StoreError(
            'a memory in PostgreSQL needs psycopg; install it: pip install "clara-mlx[postgres]"'
        ) from error
    return PostgresStore(str(name))
