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

from clara_mlx.errors import ReadOnly, StoreError
from clara_mlx.store.postgres.database import PostgresDatabase

logger = logging.getLogger(__name__)

# Bytes of tables and indexes above which a removal leaves vacuuming to the server's autovacuum.
_MOST_SWEPT = 1 << 30


def sweep(database: PostgresDatabase) -> None:
    """Vacuum the tables after a removal, unless they are large; never fails."""
    try:
        if database.size() <= _MOST_SWEPT:
            _vacuum(database, "INDEX_CLEANUP ON")
    except StoreError as error:
        logger.warning(
            "%s; until the server's autovacuum comes to it, forgotten text may still be on the "
            "pages of its tables",
            error,
        )


def rewrite(database: PostgresDatabase) -> tuple[int, int]:
    """Write all tables and indexes anew; returns their bytes before and after.

    Each table is locked meanwhile.

    Raises:
        ReadOnly: This role does not own them.
    """
    database.check_writable()
    before = database.size()
    _vacuum(database, "FULL, ANALYZE")
    return before, database.size()


def _vacuum(database: PostgresDatabase, options: str) -> None:
    """Vacuum all tables; PostgreSQL itself only skips those that this role may not vacuum."""
    rows = database.read(
        "SELECT c.oid::regclass::text AS name, pg_has_role(c.relowner, 'USAGE') AS allowed "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = ? AND c.relkind = 'r' ORDER BY 1",
        (database.schema,),
    )
    if not all(row["allowed"] for row in rows):
        raise ReadOnly(f"{database.path}: only the owner of its tables can vacuum them")
    with database.outside() as session:
        session.run(f"VACUUM ({options}) {', '.join(row['name'] for row in rows)}")
