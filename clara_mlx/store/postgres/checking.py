"""What PostgreSQL itself finds wrong with the tables and indexes of a memory.

Its foreign keys hold by themselves. The pages of tables and indexes are checked by its own program
`pg_amcheck`, which needs an administrator; see docs/TEAM.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clara_mlx.store.postgres.database import PostgresDatabase

# Indexes that were not made to the end, or were found broken; constraints that are not checked.
_INVALID = """
SELECT format('the index %s is not valid: REINDEX INDEX %I.%I', i.relname, n.nspname, i.relname)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_namespace n ON n.oid = i.relnamespace
WHERE n.nspname = ? AND NOT (x.indisvalid AND x.indisready)
UNION ALL
SELECT format('the constraint %s of %s is not checked: ALTER TABLE %I.%I VALIDATE CONSTRAINT %I',
    c.conname, t.relname, n.nspname, t.relname, c.conname)
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = ? AND NOT c.convalidated
ORDER BY 1
"""

# Pages of this database whose checksums were wrong, if the server has them.
_CHECKSUMS = """
SELECT checksum_failures FROM pg_stat_database
WHERE datname = current_database() AND checksum_failures > 0
"""

# Sketches of each model whose neighbours the index has to find.
_CHECKED_SKETCHES = 32


def damage(database: PostgresDatabase) -> list[str]:
    """What is wrong, a sentence each; nothing if all is well."""
    from clara_mlx.store.postgres import near_sketches  # it brings in numpy

    schema = database.schema
    found = [str(row[0]) for row in database.read(_INVALID, (schema, schema))]
    for row in database.read(_CHECKSUMS):
        found.append(f"PostgreSQL: pages whose checksums were wrong: {row[0]}; see its log")
    for row in database.read("SELECT id FROM spaces ORDER BY id"):
        missed, checked = near_sketches.missed(database, row["id"], _CHECKED_SKETCHES)
        if missed:
            found.append(
                f"the index of sketches does not find what is near {len(missed)} of {checked} "
                f"sketches: REINDEX INDEX {schema}.sketches_{row['id']}_near"
            )
    return found
