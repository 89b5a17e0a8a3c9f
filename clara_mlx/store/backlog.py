"""A backlog: contents that are still to be compressed, failed attempts, and the lease to do it.

A file has two, as it can have latents and shortened texts beside each other. A worker leases what
it works on, so that nobody else does the same; a lease expires unless it is renewed. In a file, one
worker at a time leases the whole backlog.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from clara_mlx.store.connection import Connection
from clara_mlx.store.protocol import Database
from clara_mlx.store.workers import has_died

#: Give up on a content after this many failed attempts; its last error is kept.
MOST_ATTEMPTS = 3


# The tables of marks: of contents without all of their latents, and of those without all of their
# shortened texts, of which there are none as long as nothing shortens. A team's database has a
# third one, for a second space: of contents without all of that one's latents.
Marks = Literal["pending", "pending_next", "pending_texts"]

# The names under which a file's two backlogs are leased.
_LEASES: dict[Marks, str] = {"pending": "compressor", "pending_texts": "shortener"}


class Backlog:
    """The contents of a file that wait to be compressed.

    Attributes:
        shared: Whether several workers can work on it at the same time, each on a part of it.
    """

    shared = False

    def __init__(self, file: Database, marks: Marks = "pending") -> None:
        self._file = file
        self._marks = marks

    @property
    def marks(self) -> Marks:
        """The table of its marks."""
        return self._marks

    def count(self) -> int:
        """Number of contents that wait or were given up."""
        return int(self._file.read(f"SELECT count(*) FROM {self.marks}")[0][0])

    def pending(self, limit: int) -> list[int]:
        """Up to ``limit`` contents that wait and have not been given up, the oldest first."""
        rows = self._file.read(
            f"SELECT content_id FROM {self.marks} WHERE attempts < ? ORDER BY content_id LIMIT ?",
            (MOST_ATTEMPTS, limit),
        )
        return [row["content_id"] for row in rows]

    def figures(self) -> dict[str, Any]:
        """Counts, and the last error, by their names in `clara_mlx.store.results.Status`."""
        marks = self.marks
        (row,) = self._file.read(
            "SELECT count(*) FILTER (WHERE attempts < ?) AS pending, "
            "count(*) FILTER (WHERE attempts >= ?) AS failed, "
            f"(SELECT error FROM {marks} WHERE error IS NOT NULL "
            f"ORDER BY content_id DESC LIMIT 1) AS last_error FROM {marks}",
            (MOST_ATTEMPTS, MOST_ATTEMPTS),
        )
        return dict(row)

    def finish(self, content_ids: Sequence[int]) -> None:
        """Take contents out of the backlog for which nothing is left to do."""
        if content_ids:
            with self._file.write() as connection:
                self.lift(connection, content_ids)

    def lift(self, connection: Connection, content_ids: Sequence[int]) -> None:
        """As `finish`, in the transaction that completes what they waited for."""
        connection.executemany(
            f"DELETE FROM {self.marks} WHERE content_id = ?", [(id,) for id in content_ids]
        )

    def note_failure(self, content_id: int, error: str) -> None:
        """Count a failed attempt at a content; nothing happens if it has been forgotten."""
        with self._file.write() as connection:
            connection.execute(
                f"UPDATE {self.marks} SET attempts = attempts + 1, error = ? WHERE content_id = ?",
                (error, content_id),
            )

    def exceeds(self, count: int) -> bool:
        """Whether more than ``count`` contents wait or were given up."""
        return bool(self._file.read(f"SELECT 1 FROM {self.marks} LIMIT 1 OFFSET ?", (count,)))

    def left(self) -> tuple[int, int]:
        """Number of chunks of the contents that wait, and of their tokens, about."""
        (row,) = self._file.read(
            'SELECT count(*), coalesce(sum(coalesce(c.tokens, (c."end" - c.start) / 4)), 0) '
            f"FROM {self.marks} p JOIN chunks c ON c.content_id = p.content_id "
            "WHERE p.attempts < ?",
            (MOST_ATTEMPTS,),
        )
        return int(row[0]), int(row[1])

    def now(self) -> float:
        """The time by which leases expire, in seconds since 1970."""
        return time.time()

    # -- leasing ---------------------------------------------------------------------------------

    def lease(self, worker: str, limit: int, seconds: float) -> list[int]:
        """Up to ``limit`` contents, the oldest first, that are this worker's to compress.

        They stay so for ``seconds``, which `renew` begins anew. None are leased while another
        worker has the lease, unless it was a process of this machine that has died.
        """
        contents = self.pending(limit)
        return contents if contents and self.renew(worker, seconds) else []

    def renew(self, worker: str, seconds: float) -> bool:
        """Keep what the worker has leased for another while; false if another one has it now."""
        name = _LEASES[self.marks]
        if self.take_lease(name, worker, seconds):
            return True
        other = self.lease_owner(name)
        if other and has_died(other):
            self.give_up_lease(name, other)
            return self.take_lease(name, worker, seconds)
        return False

    def give_back(self, worker: str) -> None:
        """Let others lease at once what the worker has leased and not finished."""
        self.give_up_lease(_LEASES[self.marks], worker)

    # -- the one lease of a file -----------------------------------------------------------------

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
