"""Opening a memory's database by its name: the path of a file, or the URL of a server."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from clara_mlx.errors import StoreError
from clara_mlx.store.originals import Originals
from clara_mlx.store.store import Store

#: What the URL of a PostgreSQL database begins with.
SCHEMES = ("postgresql://", "postgres://")

#: The schema in which a memory's tables are, unless the URL names another.
DEFAULT_SCHEMA = "clara_mlx"

# What the name of a namespace may be in a database.
_SCHEMA = re.compile(r"[A-Za-z0-9_-]{1,40}")

# The schema in the options of a URL.
_SEARCH_PATH = re.compile(r"-c ?search_path=([\w-]+)")


def is_url(name: object) -> bool:
    """Whether a name is a database's URL, not the path of a file."""
    return isinstance(name, str) and name.startswith(SCHEMES)


def place_of(name: str) -> Path | str:
    """What a setting names: the path of a file, or the URL of a database as it is."""
    return name if is_url(name) else Path(name).expanduser()


def short_name(place: Path | str) -> str:
    """The name of a memory for those who must not learn where it is."""
    if isinstance(place, Path):
        return place.name
    return unquote(urlsplit(place).path.strip("/")) or "the team's database"


def beside(place: Path | str, name: str) -> Path | str:
    """Where the memory of a namespace is: a file beside this one, or another schema of a database.

    Args:
        place: A file's path, or a database's URL.
        name: The namespace's name.

    Raises:
        StoreError: A database can't have a schema of that name.
    """
    if isinstance(place, Path):
        return place.with_name(f"{place.stem}.{name}{place.suffix or '.db'}")
    if not _SCHEMA.fullmatch(name):
        raise StoreError(
            f"the namespace {name!r} becomes a schema of the database, so its name may have "
            "letters, digits, - and _ only, at most 40 of them"
        )
    parts = urlsplit(place)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    named = _SEARCH_PATH.search(given.get("options", ""))
    schema = f"{named[1] if named else DEFAULT_SCHEMA}_{name}"
    options = _SEARCH_PATH.sub("", given.get("options", ""))
    given["options"] = f"{options} -csearch_path={schema}".strip()
    query = urlencode(given, quote_via=quote)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, parts.fragment))


def open_store(name: str | os.PathLike[str]) -> Originals:
    """Open a memory's database, or make it.

    Args:
        name: The path of an SQLite file; or ``postgresql://user@host/database``, without a
            password, for the memory that a team shares.

    Raises:
        StoreError: It can't be opened; the message says what to do.
    """
    if not is_url(name):
        return Store(name)
    try:
        from clara_mlx.store.postgres.store import PostgresStore
    except ImportError as error:
        raise StoreError(
            'a memory in PostgreSQL needs psycopg; install it: pip install "clara-mlx[postgres]"'
        ) from error
    return PostgresStore(str(name))
