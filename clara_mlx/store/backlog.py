"""The backlog: contents without latents yet, failed attempts, and the lease to work on them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from clara_mlx.store.driver import Connection
from clara_mlx.store.file import File

#: Give up on a content after this many failed attempts; its last error is kept.
MOST_ATTEMPTS = 3


def lift_marks(connection: Connection, content_ids: Iterable[int]) -> None:
    """Take contents out of the backlog, in the transaction that completes their latents."""
    connection.executemany(
        "DELETE FROM pending WHERE content_id = ?", [(id,) for id in content_ids]
    )


class Backlog:
    """The contents of a file that wait for their latents."""

    def __init__(self, file: File) -> None:
        self._file = file

    def count(self) -> int:
        """Number of contents that wait for their latents or were given up."""
        return int(self._file.read("SELECT count(*) FROM pending")[0][0])

    def pending(self, limit: int) -> list[int]:
        """Up to ``limit`` contents that wait and have not been given up, the oldest first."""
        rows = self._file.read(
            "SELECT content_id FROM pending WHERE attempts < ? ORDER BY content_id LIMIT ?",
            (MOST_ATTEMPTS, limit),
        )
        return [row["content_id"] for row in rows]

    def finish(self, content_ids: Sequence[int]) -> None:
        """Take contents out of the backlog whose chunks all have latents."""
        if content_ids:
            with self._file.write() as connection:
                lift_marks(connection, content_ids)

    def note_failure(self, content_id: int, error: str) -> None:
        """Count a failed attempt at a content; nothing happens if it has been forgotten."""
        with self._file.write() as connection:
            connection.execute(
                "UPDATE pending SET attempts = attempts + 1, error = ? WHERE content_id = ?",
                (error, content_id),
            )

    # -- the lease -------------------------------------------------------------------------------

    def take_lease(self, name: str, owner: str, seconds: float) -> bool:
        """Take or renew a lease; returns whether the owner has it now.

        That fails as long as the lease of another owner has not expired.
        """
        now = time.time()
        with self._file.write() as connection:
            connection.execute(
                "INSERT INTO leases (name, owner, expires_at) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, "
                "expires_at = excluded.expires_at "
                "WHERE leases.owner = excluded.owner OR leases.expires_at < ?",
                (name, owner, now + seconds, now),
            )
            row = connection.execute("SELECT owner FROM leases WHERE name = ?", (name,)).fetchone()
        return bool(row["owner"] == owner)

    def lease_owner(self, name: str) -> str | None:
        """The owner who took a lease last, and may have let it expire."""
        rows = self._file.read("SELECT owner FROM leases WHERE name = ?", (name,))
        return rows[0]["owner"] if rows else None

    def give_up_lease(self, name: str, owner: str) -> None:
        """Let another owner take a lease at once."""
        with self._file.write() as connection:
            connection.execute("DELETE FROM leases WHERE name = ? AND owner = ?", (name, owner))
