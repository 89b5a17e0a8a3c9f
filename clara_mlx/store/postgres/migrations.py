"""Bringing a database up to date: one process at a time, and never one that is not a memory's."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql as statements

from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.store.postgres.schema import MIGRATIONS, OURS
from clara_mlx.store.postgres.session import Driver

#: The schema in which the tables are, unless the URL's search_path names another.
SCHEMA = "clara_mlx"

# The oldest versions that have what is used here: PostgreSQL's SQL functions with bodies that are
# checked, and pgvector's indexes of bits.
_LEAST_SERVER = 140000
_LEAST_VECTOR = (0, 7)

# What stores and compares vectors and bits: pgvector's name.
_VECTOR = "vector"

# The row of `meta` that says how many migrations a database has had.
_FORMAT = "format"


@dataclass(frozen=True)
class Place:
    """Where the tables are.

    Attributes:
        schema: Their schema.
        path: It and that of pgvector, as a ``search_path``.
        lock: The number of the advisory lock that writers share and removers have alone.
        obstacle: Why nothing can be written; None if it can.
    """

    schema: str
    path: str
    lock: int
    obstacle: str | None


def migrate(driver: Driver, name: object) -> Place:
    """Make the tables, or bring them up to date, while others who do the same wait.

    Args:
        driver: A connection that is in no transaction.
        name: What messages call the database.

    Raises:
        StoreError: It was made by a newer clara-mlx, is another program's, or lacks what is needed.
    """
    schema = _schema(driver)
    _check_server(driver, name)
    with driver.transaction():
        version = _version(driver, schema, name)
        if version < len(MIGRATIONS):
            _upgrade(driver, schema, name)
        vector = _vector_schema(driver)
    if vector is None:
        raise StorageFailed(f"{name}: the extension vector was dropped; CREATE EXTENSION vector")
    quoted = [statements.Identifier(one).as_string(driver) for one in (schema, vector)]
    number = driver.execute(
        "SELECT hashtextextended($1, 0) AS number", (f"clara_mlx {schema}",)
    ).fetchone()
    assert number is not None
    path = ", ".join(dict.fromkeys(quoted))
    return Place(schema, path, number["number"], _obstacle(driver, schema))


def is_made(driver: Driver, name: object) -> bool:
    """Whether the tables are there, in whatever format; none is made."""
    return _version(driver, _schema(driver), name) > 0


def _schema(driver: Driver) -> str:
    """The schema that the URL names, or ours."""
    row = driver.execute(
        "SELECT setting FROM pg_settings WHERE name = 'search_path' AND source = 'client'"
    ).fetchone()
    named = row["setting"].split(",")[0].strip().strip('"') if row else ""
    return named or SCHEMA


def _check_server(driver: Driver, name: object) -> None:
    version = driver.info.server_version
    if version < _LEAST_SERVER:
        raise StoreError(
            f"{name}: PostgreSQL {version // 10000} is older than {_LEAST_SERVER // 10000}"
        )
    encoding = driver.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"{name}: its encoding is {encoding}; make a database whose encoding is UTF8: "
            "CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
        )


def _version(driver: Driver, schema: str, name: object) -> int:
    """The number of migrations that a schema has had; refuses one that is not ours to change."""
    rows = driver.execute(
        "SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
        (schema,),
    ).fetchall()
    tables = {row["name"] for row in rows}
    if not tables:
        return 0
    found = None
    if tables.issuperset(OURS):
        meta = statements.Identifier(schema, "meta")
        query = statements.SQL("SELECT value FROM {} WHERE key = $1").format(meta)
        found = driver.execute(query, (_FORMAT,)).fetchone()
    if found is None:
        raise StoreError(
            f"{name}: the schema {schema} is another program's; choose another database, or "
            "another schema with ?options=-csearch_path%3Dname"
        )
    version = int(found["value"])
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{name}: its format is {version}, but this clara-mlx reads up to {len(MIGRATIONS)}; "
            "update clara-mlx"
        )
    return version


def _upgrade(driver: Driver, schema: str, name: object) -> None:
    """Run the migrations that are missing, in this transaction."""
    driver.execute("SET LOCAL statement_timeout = 0")
    driver.execute("SET LOCAL lock_timeout = 0")
    driver.execute("SELECT pg_advisory_xact_lock(hashtextextended('clara_mlx migrations', 0))")
    version = _version(driver, schema, name)  # another process may have come first
    if version == len(MIGRATIONS):
        return
    if driver.execute("SELECT 1 WHERE pg_is_in_recovery()").fetchone():
        raise StorageFailed(f"{name}: there is no memory in it yet, and it is a read-only standby")
    _make_schema(driver, schema, name)
    vector = _make_vector(driver, schema, name)
    path = statements.SQL(", ").join(map(statements.Identifier, dict.fromkeys((schema, vector))))
    driver.execute(statements.SQL("SET LOCAL search_path = {}").format(path))
    for script in MIGRATIONS[version:]:
        driver.execute(script)
    driver.execute(
        "INSERT INTO meta (key, value) VALUES ($1, $2) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_FORMAT, str(len(MIGRATIONS))),
    )


def _make_schema(driver: Driver, schema: str, name: object) -> None:
    there = driver.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)).fetchone()
    if there:
        return
    make = statements.SQL("CREATE SCHEMA {}").format(statements.Identifier(schema))
    try:
        driver.execute(make)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StorageFailed(
            f"{name}: this role may not make a schema; have the database's owner run: "
            f"CREATE SCHEMA {schema} AUTHORIZATION {driver.info.user}"
        ) from error


def _make_vector(driver: Driver, schema: str, name: object) -> str:
    """Make the extension vector, if it is not there; returns its schema."""
    if (there := _vector_schema(driver)) is not None:
        _check_vector(driver, name)
        return there
    try:
        public = driver.execute("SELECT to_regnamespace('public') IS NOT NULL AS there").fetchone()
        where = "public" if public and public["there"] else schema
        make = statements.SQL("CREATE EXTENSION {} SCHEMA {}")
        driver.execute(make.format(*map(statements.Identifier, (_VECTOR, where))))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName) as error:
        raise StorageFailed(
            f"{name}: it needs the extension vector, which this role may not create; have an "
            "administrator run in this database: CREATE EXTENSION vector"
        ) from error
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
        raise StorageFailed(
            f"{name}: it needs the extension vector (pgvector), which its server does not have; "
            "install it there (github.com/pgvector/pgvector), then open the memory again"
        ) from error
    _check_vector(driver, name)
    return where


def _vector_schema(driver: Driver) -> str | None:
    row = driver.execute(
        "SELECT n.nspname AS name FROM pg_extension e JOIN pg_namespace n "
        "ON n.oid = e.extnamespace WHERE e.extname = $1",
        (_VECTOR,),
    ).fetchone()
    return None if row is None else row["name"]


def _check_vector(driver: Driver, name: object) -> None:
    query = "SELECT extversion AS version FROM pg_extension WHERE extname = $1"
    row = driver.execute(query, (_VECTOR,)).fetchone()
    assert row is not None
    version = tuple(int(part) for part in row["version"].split(".")[:2])
    if version < _LEAST_VECTOR:
        raise StorageFailed(
            f"{name}: its extension vector is {row['version']}; at least 0.7 is needed: "
            "ALTER EXTENSION vector UPDATE"
        )


def _obstacle(driver: Driver, schema: str) -> str | None:
    row = driver.execute(
        "SELECT pg_is_in_recovery() AS standby, "
        "current_setting('default_transaction_read_only') = 'on' AS read_only, "
        "has_table_privilege($1, 'INSERT') AS allowed",
        (statements.Identifier(schema, "memories").as_string(driver),),
    ).fetchone()
    assert row is not None
    if row["standby"]:
        return "it is a read-only standby"
    if row["read_only"]:
        return "its transactions are read-only (default_transaction_read_only)"
    return None if row["allowed"] else "this role may not write it"
