"""The errors of PostgreSQL and of the way to it, in plain words and without connection strings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolClosed

from clara_mlx.errors import Busy, Closed, ReadOnly, StorageFailed, StoreError
from clara_mlx.store.protocol import HandleTaken

#: The constraint by which each handle is one memory's.
HANDLES = "memories_handle_key"

# What PostgreSQL's codes mean here (postgresql.org/docs/current/errcodes-appendix.html).
_WAITED = {"40001", "40P01", "55P03"}
_CANCELLED = "57014"
_FULL = "53100"
_READ_ONLY = "25006"
_NOT_ALLOWED = "42501"
_DUPLICATE = "23505"
_REFERS_TO_NOTHING = "23503"
# A number too large, a text too long, a statement too complex: no such value can be kept.
_IMPOSSIBLE = ("22", "54")
# No connection, no room for one, or the server is going down or coming up.
_GONE = ("08", "53", "57P", "58")


@contextmanager
def in_plain_words(name: object) -> Iterator[None]:
    """Turn psycopg's errors in a block into a StoreError that says what to do.

    Args:
        name: What messages call the database.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise StoreError(f"source, session and filters must be Unicode: {error}") from error
    except OverflowError as error:
        raise StoreError(f"{name}: PostgreSQL can't hold this value: {error}") from error
    except PoolClosed as error:
        raise Closed(f"{name}: the memory is closed; open it again") from error
    except psycopg.Error as error:
        raise translated(error, name) from error


def translated(error: psycopg.Error, name: object) -> StoreError:
    """What to raise in the place of an error of psycopg."""
    code = error.sqlstate or ""
    text = said(error)
    if code == _DUPLICATE and error.diag.constraint_name == HANDLES:
        return HandleTaken(name)
    if code in _WAITED:
        return Busy(f"{name}: others have been writing for too long; try again", transient=True)
    if code == _REFERS_TO_NOTHING:  # as a text was cut anew, or forgotten, by another process
        return Busy(f"{name}: others removed what this belongs to; try again", transient=True)
    if code == _CANCELLED:
        return Busy(
            f"{name}: it took longer than its time-out allows ({text}); try again, or set a longer "
            "one: ALTER ROLE ... SET statement_timeout",
            transient=True,
        )
    if code == _FULL:
        return StorageFailed(
            f"{name}: the server's disk is full; nothing of this step was kept", transient=True
        )
    if code == _READ_ONLY:
        return ReadOnly(f"{name}: it can't be written: {text}")
    if code == _NOT_ALLOWED:
        return ReadOnly(f"{name}: this role may not do that: {text}")
    if code.startswith(_IMPOSSIBLE):
        return StoreError(f"the memory can't do this: {text}")
    if is_lost(error):
        return StorageFailed(f"{name}: the database can't be reached: {text}", transient=True)
    return StorageFailed(f"{name}: {text}; `clara-mlx verify` says what can still be read")


def is_lost(error: psycopg.Error) -> bool:
    """Whether the connection, or the server, is gone; another connection may be had later."""
    code = error.sqlstate or ""
    if not code:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return code.startswith(_GONE) and code != _CANCELLED


def said(error: psycopg.Error) -> str:
    """What an error says in one line; values that were given stand in its details, left out."""
    text = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(text.split())
