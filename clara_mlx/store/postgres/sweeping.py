"""Cleaning up behind deleted rows, which PostgreSQL keeps on its pages until they are vacuumed.

Nobody can read a deleted row by SQL. After a removal the tables are vacuumed at once, so that no
entry of an index leads there, as soon as no transaction that began before can still see it. The
bytes that this frees stay on their pages until others take their place, and GIN never drops a word
from its keys; `rewrite`, which `clara-mlx vacuum` runs, writes tables and indexes anew, so that
their files have nothing of it. What the server's write-ahead log and its archives keep is the
administrator's: see docs/TEAM.md.
"""

from __future__ import annotations

import logging

from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.store.postgres.database import PostgresDatabase

logger = logging.getLogger(__name__)

# Bytes of tables and indexes above which a removal leaves vacuuming to the server's autovacuum.
_MOST_SWEPT = 1 << 30


def sweep(database: PostgresDatabase) -> None:
    """Vacuum the tables after a removal, unless they are large; never fails."""
    try:
        if database.size() <= _MOST_SWEPT:
            with database.outside() as session:
                session.run(f"VACUUM (INDEX_CLEANUP ON) {', '.join(_tables(database))}")
    except StorageFailed as error:
        logger.warning("forgotten text may still be on the pages of the database: %s", error)


def rewrite(database: PostgresDatabase) -> tuple[int, int]:
    """Write all tables and indexes anew; returns their bytes before and after.

    Each table is locked meanwhile.

    Raises:
        StoreError: This role may not.
    """
    database.check_writable()
    before = database.size()
    try:
        with database.outside() as session:
            session.run(f"VACUUM (FULL, ANALYZE) {', '.join(_tables(database))}")
    except StoreError as error:
        raise StorageFailed(f"{error}; run it as the owner of the tables") from error
    return before, database.size()


def _tables(database: PostgresDatabase) -> list[str]:
    rows = database.read(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = ? AND c.relkind = 'r' ORDER BY 1",
        (database.schema,),
    )
    return [row[0] for row in rows]
