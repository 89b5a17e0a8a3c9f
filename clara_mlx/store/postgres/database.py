"""A team's database: its connections, transactions and advisory lock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolTimeout

from clara_mlx.errors import Busy, Closed, ReadOnly, StorageFailed
from clara_mlx.store.connection import Connection
from clara_mlx.store.postgres import migrations
from clara_mlx.store.postgres.dialect import POSTGRES
from clara_mlx.store.postgres.errors import in_plain_words, is_lost, translated
from clara_mlx.store.postgres.migrations import migrate
from clara_mlx.store.postgres.rows import Row
from clara_mlx.store.postgres.session import CONNECTING, Driver, Session, prepare, with_defaults
from clara_mlx.store.postgres.url import check_url
from clara_mlx.store.protocol import Database, DatabaseUrl

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The most connections of one process; its other threads wait for one.
_MOST_CONNECTIONS = 12

# Seconds that a thread waits for one.
_POOL_SECONDS = 15

# Seconds that a thread waits while it is known that the database can't be reached: an agent goes on
# without its memory, and must not wait for it at every step.
_OUTAGE_SECONDS = 0.1

# Seconds after which the pool gives up to connect, until somebody asks again: it waits longer and
# longer between its attempts.
_RECONNECT_SECONDS = 8

# Seconds after which a connection that nobody uses is closed, down to one.
_UNUSED_SECONDS = 120

# The row of `meta` that counts removals.
_REMOVALS = "removals"


class PostgresDatabase(Database):
    """A database that a team shares; each transaction has a connection of its own.

    Args:
        url: ``postgresql://...``, without a password.

    Raises:
        StoreError: It can't be reached, lacks something, is of a newer format or another program's.
    """

    dialect = POSTGRES

    def __init__(self, url: str) -> None:
        check_url(url)
        self.path = DatabaseUrl(url)
        self.removed = 0
        self._parts = with_defaults(conninfo_to_dict(url))
        self._local = threading.local()
        self._closed = False
        # Why the database could not be reached when a thread waited for it last.
        self._unreachable: psycopg.Error | None = None
        with in_plain_words(url):
            with self._connect() as first:
                self._place = migrate(first, url)
            self._pool: ConnectionPool[Driver] = ConnectionPool(
                "",
                connection_class=psycopg.Connection[Row],
                kwargs={**self._parts, **CONNECTING},
                configure=lambda driver: prepare(driver, self._place.path),
                min_size=1,
                max_size=_MOST_CONNECTIONS,
                timeout=_POOL_SECONDS,
                reconnect_timeout=_RECONNECT_SECONDS,
                max_idle=_UNUSED_SECONDS,
                num_workers=1,
                name="clara-mlx",
                open=True,
            )
        logger.debug("%s: opened, schema %s", url, self._place.schema)

    def _connect(self) -> Driver:
        """A connection beside the pool, with pgvector's and our schemas still unknown."""
        driver = psycopg.Connection[Row].connect(**self._parts, **CONNECTING)
        driver.execute("SET client_encoding = 'UTF8'")
        return driver

    @property
    def schema(self) -> str:
        """The schema in which the tables are."""
        return self._place.schema

    @property
    def obstacle(self) -> str | None:
        """Why it can only be read; None if it can be written."""
        return self._place.obstacle

    def check_writable(self) -> None:
        """Check that it can be written; see `Database`."""
        self._check_open()
        if self.obstacle:
            raise ReadOnly(f"{self.path}: it can be read, but not written: {self.obstacle}")

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self.path}: the memory is closed; open it again")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn psycopg's errors into a StoreError that says what to do."""
        with in_plain_words(self.path):
            yield

    def close(self) -> None:
        """Close all connections; whatever is asked afterwards is refused."""
        self._closed = True
        self._pool.close()

    # -- connections -----------------------------------------------------------------------------

    def _borrow(self) -> Driver:
        """A connection of the pool.

        Raises:
            StorageFailed: The database can't be reached, or other threads have all of them.
        """
        self._check_open()
        known = self._unreachable
        try:
            driver = self._pool.getconn(_OUTAGE_SECONDS if known else _POOL_SECONDS)
        except PoolTimeout as error:
            if known:
                raise known.with_traceback(None) from error
            try:
                self._connect().close()
            except psycopg.Error as reason:
                self._unreachable = reason
                raise
            raise Busy(
                f"{self.path}: other threads have had all {_MOST_CONNECTIONS} connections for "
                f"{_POOL_SECONDS} s; try again",
                transient=True,
            ) from error
        self._unreachable = None
        return driver

    def _with_connection(self, work: Callable[[Driver], T]) -> tuple[Driver, T]:
        """Do something on a connection that others may have broken meanwhile, as a server restarts.

        Nothing is written by it, so that it can be done again on another one.
        """
        for _ in range(_MOST_CONNECTIONS + 1):
            driver = self._borrow()
            try:
                return driver, work(driver)
            except psycopg.Error as error:
                self._pool.putconn(driver)
                if not (driver.closed and is_lost(error)):
                    raise
                lost = error
            except BaseException:
                self._pool.putconn(driver)
                raise
        raise translated(lost, self.path) from lost

    # -- reading and writing ---------------------------------------------------------------------

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Rows of a query; in a transaction of this thread, as that sees them."""
        session: Session | None = getattr(self._local, "session", None)
        with in_plain_words(self.path):
            if session is not None:
                return session.execute(sql, parameters).fetchall()
            driver, rows = self._with_connection(
                lambda driver: Session(driver).execute(sql, parameters).fetchall()
            )
            self._pool.putconn(driver)
            return rows

    @contextmanager
    def write(self, *, synced: bool = True, alone: bool = False) -> Iterator[Connection]:
        """A transaction that writes: all of it or nothing; see `Database.write`."""
        self.check_writable()
        lock = "pg_advisory_xact_lock" + ("" if alone else "_shared")
        begin = f"BEGIN; SELECT {lock}({self._place.lock})"
        if not synced:
            begin += "; SET LOCAL synchronous_commit = off"
        with self._transaction(begin) as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A transaction that reads the database as it is at one moment, whoever writes."""
        with self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as session:
            yield session

    @contextmanager
    def reading(self, settings: Mapping[str, object]) -> Iterator[Session]:
        """A transaction that reads, each statement what was written before it.

        Args:
            settings: Settings of the server for this transaction, by name.
        """
        lines = [f"SET LOCAL {name} = '{value}'" for name, value in settings.items()]
        with self._transaction("; ".join(["BEGIN READ ONLY", *lines])) as session:
            yield session

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Session]:
        if getattr(self._local, "session", None) is not None:
            raise StorageFailed(f"{self.path}: this thread is in a transaction already")
        with in_plain_words(self.path):
            driver, session = self._with_connection(lambda driver: _begin(driver, begin))
            self._local.session = session
            try:
                yield session
                driver.execute("COMMIT")
            finally:
                self._local.session = None
                try:
                    if not driver.closed and driver.info.transaction_status != _IDLE:
                        driver.execute("ROLLBACK")
                finally:
                    self._pool.putconn(driver)

    @contextmanager
    def outside(self) -> Iterator[Session]:
        """A connection in no transaction and without a time-out, for what must be in none."""
        with in_plain_words(self.path):
            driver, before = self._with_connection(_without_timeout)
            try:
                yield Session(driver)
            finally:
                try:
                    if not driver.closed:
                        driver.execute(
                            "SELECT set_config('statement_timeout', $1, false)", (before,)
                        )
                finally:
                    self._pool.putconn(driver)

    # -- removing --------------------------------------------------------------------------------

    def removals(self) -> object:
        """A value that stays equal while nothing is removed, by whomever."""
        rows = self.read("SELECT value FROM meta WHERE key = ?", (_REMOVALS,))
        return rows[0][0] if rows else None

    def size(self) -> int:
        """The bytes of all tables and indexes of the schema, as the server's disk has them."""
        rows = self.read(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ? AND c.relkind IN ('r', 'm')",
            (self.schema,),
        )
        return int(rows[0][0])

    def used_bytes(self) -> int:
        """As `size`: what is deleted is vacuumed at once, and used again."""
        return self.size()


def is_made(url: str) -> bool:
    """Whether a URL's database has a memory; none is made.

    Raises:
        StoreError: It can't be reached, or is another program's.
    """
    check_url(url)
    parts = with_defaults(conninfo_to_dict(url))
    with in_plain_words(url), psycopg.Connection[Row].connect(**parts, **CONNECTING) as driver:
        return migrations.is_made(driver, url)


_IDLE = psycopg.pq.TransactionStatus.IDLE


def _begin(driver: Driver, begin: str) -> Session:
    driver.execute(begin)
    return Session(driver)


def _without_timeout(driver: Driver) -> str:
    row = driver.execute("SELECT current_setting('statement_timeout') AS value").fetchone()
    driver.execute("SET statement_timeout = 0")
    assert row is not None
    return str(row["value"])
