"""A connection to PostgreSQL that speaks the common SQL, and how each one is prepared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql as statements

from clara_mlx.store.postgres.rows import Row, adapt, numbered, rows_by_name

#: Seconds after which PostgreSQL gives up on one statement, unless the role, the database or the
#: URL says otherwise.
STATEMENT_SECONDS = 120

#: Seconds that a statement waits for others before it gives up, as a writer of a file does.
LOCK_SECONDS = 30

# Seconds after which PostgreSQL ends a transaction in which nothing happens: its machine is gone.
_IDLE_SECONDS = 300

# Seconds that connecting to one address may take.
_CONNECT_SECONDS = 10

# Seconds of silence, and then between questions, after which a connection counts as lost.
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}

#: How connections are made; what the URL says comes first.
CONNECTING: dict[str, Any] = {
    "autocommit": True,
    "cursor_factory": psycopg.RawCursor,
    "row_factory": rows_by_name,
}

Driver = psycopg.Connection[Row]


def with_defaults(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts of a connection string, with ours for those that it does not name."""
    ours = {"connect_timeout": _CONNECT_SECONDS, "application_name": "clara-mlx", **_KEEPALIVE}
    return {**ours, **{name: value for name, value in parts.items() if value is not None}}


def prepare(connection: Driver, path: str) -> None:
    """Set up a new connection: its time-outs, and ``path``, the schemas in which names are.

    An index is used wherever there is one, since PostgreSQL knows neither what it costs to compare
    words and sketches, nor how rare words are, as no statistics of them are kept.
    """
    adapt(connection)
    connection.execute(
        statements.SQL(
            "SELECT set_config('search_path', {path}, false), "
            "set_config('client_encoding', 'UTF8', false), "
            "set_config('jit', 'off', false), "
            "set_config('enable_seqscan', 'off', false), "
            "set_config('lock_timeout', {lock}, false), "
            "set_config('idle_in_transaction_session_timeout', {idle}, false), "
            "CASE WHEN current_setting('statement_timeout') = '0' "
            "THEN set_config('statement_timeout', {statement}, false) END"
        ).format(
            path=statements.Literal(path),
            lock=statements.Literal(f"{LOCK_SECONDS}s"),
            idle=statements.Literal(f"{_IDLE_SECONDS}s"),
            statement=statements.Literal(f"{STATEMENT_SECONDS}s"),
        )
    )


class Session:
    """A connection, as those who write rows know it.

    Attributes:
        driver: Psycopg's connection.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> psycopg.Cursor[Row]:
        """Run a statement with marks ``?``."""
        return self.driver.execute(numbered(sql), parameters or None, binary=True)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> psycopg.Cursor[Row]:
        """Run a statement once for each row of parameters, without waiting in between."""
        cursor = self.driver.cursor(binary=True)
        cursor.executemany(numbered(sql), list(rows))
        return cursor

    def run(self, script: str) -> None:
        """Run statements without parameters, several at once."""
        self.driver.execute(script)
