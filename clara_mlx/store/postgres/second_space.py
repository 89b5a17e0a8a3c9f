"""The second space: a team's memory changes its model, while the old one goes on answering.

The space of the new model stands beside the one that answers, which is always the first of the two.
Workers with the new model fill it; what it lacks is in ``pending_next``. When that is all done, the
old space is dropped, and the new one is the first. Both models are in use until then: whoever opens
the memory with either searches in its own space, as far as that is filled.
"""

from __future__ import annotations

from clara_mlx.store.backlog import MOST_ATTEMPTS
from clara_mlx.store.connection import Connection
from clara_mlx.store.protocol import Database
from clara_mlx.store.spaces import SecondSpace

# Latents that one transaction deletes.
_DELETED_TOGETHER = 1_000

# The old space, if there are two and the second one lacks nothing but what was given up.
_COMPLETED = (
    "SELECT min(id) AS id FROM spaces WHERE (SELECT count(*) FROM spaces) = 2 "
    "AND NOT EXISTS (SELECT 1 FROM pending_next WHERE attempts < ?) HAVING count(*) > 0"
)


def prepare(database: Database, connection: Connection) -> None:
    """Put all contents into the backlog of a new space, in the transaction that makes it.

    An unfinished second space, of yet another model, is dropped; one that is complete takes its
    place first.
    """
    _switch(database, connection)
    for row in connection.execute("SELECT id FROM spaces ORDER BY id OFFSET 1").fetchall():
        _drop(database, connection, row["id"])
    connection.execute("DELETE FROM pending_next")
    connection.execute("INSERT INTO pending_next (content_id) SELECT id FROM contents")


def find(database: Database) -> SecondSpace | None:
    """The second space, and how far it is filled; None if there is none."""
    rows = database.read(
        "SELECT compressor, fingerprint, (SELECT count(*) FROM pending_next) AS left, "
        "(SELECT count(*) FROM contents) AS contents FROM spaces ORDER BY id OFFSET 1"
    )
    return SecondSpace(*rows[0]) if rows else None


def finish(database: Database) -> bool:
    """Let the new space take the place of the old one if it is complete; false if it is not.

    Contents that were given up don't hold it up; they are in its backlog afterwards. The old
    latents are deleted a part at a time first, so that this holds up nobody; from then on, whoever
    still has the old model open finds by words.
    """
    while old := database.read(_COMPLETED, (MOST_ATTEMPTS,)):
        with database.write() as connection:
            deleted = connection.execute(
                "DELETE FROM latents WHERE id IN (SELECT id FROM latents WHERE space_id = ? "
                f"AND EXISTS ({_COMPLETED}) LIMIT ? FOR UPDATE SKIP LOCKED)",
                (old[0]["id"], MOST_ATTEMPTS, _DELETED_TOGETHER),
            ).rowcount
        if not deleted:
            with database.write(alone=True) as connection:
                return _switch(database, connection)
    return False


def _switch(database: Database, connection: Connection) -> bool:
    """Drop the old space if the new one is complete, which is the first one then."""
    old = connection.execute(_COMPLETED, (MOST_ATTEMPTS,)).fetchone()
    if old is None:
        return False
    _drop(database, connection, old["id"])
    connection.execute("DELETE FROM pending")
    connection.execute("INSERT INTO pending SELECT * FROM pending_next")
    connection.execute("DELETE FROM pending_next")
    return True


def _drop(database: Database, connection: Connection, space_id: int) -> None:
    database.dialect.sketches.drop(connection, space_id)
    connection.execute("DELETE FROM spaces WHERE id = ?", (space_id,))  # and with it its latents
