"""The SQLite driver: the only module that chooses it and opens connections.

vec0 needs a driver that loads extensions, which Apple's, python.org's and pyenv's default Python do
not have. Two SQLite libraries must never open one file in one process (their POSIX locks would undo
each other), so the choice is made once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clara_mlx.errors import StorageFailed, StoreError, reason

if TYPE_CHECKING:
    Connection = sqlite3.Connection
else:
    Connection = Any

# contentless_delete and secure-delete of FTS5.
_LEAST_VERSION = (3, 43, 0)

#: Seconds that a writer waits for others before it gives up. SQLite's writers do not queue: of four
#: that write without a pause, the unluckiest waits several seconds (bench/stress.py concurrency).
BUSY_SECONDS = 30.0

# Seconds to try again what the file system refused, as it may do while others make the same file.
_REFUSED_SECONDS = 1.0

#: Length of the write-ahead log, in bytes, above which it is emptied as soon as no reader needs it.
#: Without long readers it stays below, as SQLite starts it anew after 1,000 pages.
LOG_BYTES = 32 << 20

# Length to which the log shrinks when SQLite starts it anew.
_KEPT_LOG_BYTES = 4 << 20

# SQLite's result codes (sqlite.org/rescode.html). The messages can't stand for them, because some
# quote what the caller gave.
_BUSY, _LOCKED, _READ_ONLY, _IO_ERROR, _CORRUPT = 5, 6, 8, 10, 11
_FULL, _CANT_OPEN, _TOO_BIG, _NO_DATABASE = 13, 14, 18, 26

# What SQLite says of statements that can never run. Their code is that of other faults, too.
_REQUESTS = (
    "bad JSON path",
    "Expression tree is too large",
    "too many SQL variables",
)


@functools.cache
def driver() -> ModuleType:
    """The standard library's sqlite3 if it has the features needed, else pysqlite3.

    Raises:
        StoreError: Neither has them; the message says what to install.
    """
    reasons = []
    for name in ("sqlite3", "pysqlite3"):
        try:
            module = importlib.import_module(name)
            if module.sqlite_version_info < _LEAST_VERSION:
                raise ImportError(f"SQLite {module.sqlite_version} is older than 3.43")
            with contextlib.closing(module.connect(":memory:")) as connection:
                _load_vec(connection)
                connection.execute("CREATE VIRTUAL TABLE probe USING fts5(x)")
            return module
        except Exception as error:  # each driver has errors of its own
            reasons.append(f"{name}: {error}")
    raise StoreError(
        "no SQLite library here can load sqlite-vec (" + "; ".join(reasons) + "); "
        "install one with: pip install pysqlite3"
    )


def _load_vec(connection: Connection) -> None:
    connection.enable_load_extension(True)
    try:
        connection.load_extension(_vec_path())
    finally:
        connection.enable_load_extension(False)


@functools.cache
def _vec_path() -> str:
    """Where sqlite-vec's extension is, without importing the package, which brings in numpy."""
    package = importlib.util.find_spec("sqlite_vec")
    if package is None or package.origin is None:
        raise ImportError("sqlite-vec is not installed; pip install sqlite-vec")
    return str(Path(package.origin).with_name("vec0"))


def connect(path: Path, *, immutable: bool = False, salvage: bool = False) -> Connection:
    """Open a connection with everything set: foreign keys, secure deletion, full durability.

    Transactions are explicit (``BEGIN IMMEDIATE``). The file is there already
    (`permissions.secure`), and nothing is written yet: it may be another program's (`use_wal`
    comes later).

    Args:
        path: The file.
        immutable: Only read it, without locks and without its log: nobody must write it.
        salvage: Only read it, as far as it can be read, though it is shorter than it should be.

    Raises:
        StorageFailed: The file can't be opened or is not a database.
    """
    module = driver()
    connection: Connection | None = None
    try:
        connection = module.connect(
            f"file:{quote(str(path))}?immutable=1" if immutable else str(path),
            uri=immutable,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = module.Row
        _load_vec(connection)
        if salvage:
            # SQLite then believes the file's length instead of what its header says.
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("PRAGMA query_only = ON")
        # New files only. Each commit adds some thirty pages to the log, so they are small; reading
        # the blobs of a search takes no longer than with four times as large ones.
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA cache_size = -16384")  # KiB: the indexes of 100,000 chunks
        connection.execute("PRAGMA synchronous = FULL")  # what is acknowledged survives power loss
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_KEPT_LOG_BYTES}")
        connection.execute("PRAGMA mmap_size = 0")  # cold blob reads are ten times slower with it
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except module.Error as error:
        if connection is not None:
            connection.close()
        raise StorageFailed(
            f"{path}: can't be opened as a memory: {reason(error)}", transient=is_transient(error)
        ) from error
    return connection


def use_wal(connection: Connection) -> None:
    """Switch the file to a write-ahead log, so that readers and a writer don't block each other.

    The file stays so. Waits for other processes, which SQLite doesn't always do by itself when
    several of them switch at once. A full disk is not waited for.
    """
    begun = time.monotonic()
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except driver().OperationalError as error:
            patience = BUSY_SECONDS if is_busy(error) else _REFUSED_SECONDS
            if not is_transient(error) or time.monotonic() > begun + patience:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def transaction(connection: Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[Connection]:
    """A transaction, which is rolled back unless the block commits it."""
    connection.execute(begin)
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def is_busy(error: object) -> bool:
    """Whether another connection kept the file locked for too long."""
    return _code(error) in (_BUSY, _LOCKED)


def is_full(error: object) -> bool:
    """Whether the disk is full."""
    return _code(error) == _FULL


def is_unwritable(error: object) -> bool:
    """Whether the file system may have refused: it is full, read-only, or not this user's."""
    return _code(error) in (_READ_ONLY, _IO_ERROR, _FULL, _CANT_OPEN)


def is_outdated(error: object) -> bool:
    """Whether another connection was changing the tables, so that the same step succeeds now."""
    return "vtable constructor failed" in str(error)


def is_damage(error: object) -> bool:
    """Whether SQLite found a file that it did not write so."""
    return _code(error) in (_CORRUPT, _NO_DATABASE)


def is_transient(error: Exception) -> bool:
    """Whether the same step may succeed later: another process is writing, or the disk is full."""
    if isinstance(error, driver().Error):
        return _code(error) in (_BUSY, _LOCKED, _IO_ERROR, _FULL, _CANT_OPEN)
    return isinstance(error, OSError)


def is_impossible(error: Exception) -> bool:
    """Whether SQLite can't do what was asked, whatever the file holds: the caller's mistake."""
    return _code(error) == _TOO_BIG or any(words in str(error) for words in _REQUESTS)


def _code(error: object) -> int:
    """The primary result code of a driver's error; 0 if it has none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
