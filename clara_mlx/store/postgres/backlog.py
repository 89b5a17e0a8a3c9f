"""A team's backlog: each worker leases rows of it, which say whose they are and until when.

Rows that another worker is about to lease are skipped, not waited for (``SKIP LOCKED``), so any
number of workers take theirs at the same time. Times are the server's: machines' clocks differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from clara_mlx.errors import OtherModel
from clara_mlx.store.backlog import MOST_ATTEMPTS, Backlog, Marks
from clara_mlx.store.connection import Connection
from clara_mlx.store.protocol import Database
from clara_mlx.store.workers import has_died

# The contents that a worker can have now: those that nobody has, and those that it has already,
# as its connection may have been lost before it heard so.
_FREE = "(leased_until IS NULL OR leased_until < clock_timestamp() OR leased_by = ?)"

# One worker leases no more than this part of what is free, so that at the end of a backlog all have
# something to do; unless that is very little.
_SHARE = 4
_LEAST = 4


class SharedBacklog(Backlog):
    """A backlog that several workers share; see `Backlog`."""

    shared = True

    # What is made of chunks: rows that have a ``chunk_id``.
    _made = "shortened"

    def now(self) -> float:
        """The server's time, in seconds since 1970."""
        sql = "SELECT extract(epoch FROM clock_timestamp())::double precision"
        return float(self._file.read(sql)[0][0])

    def lease(self, worker: str, limit: int, seconds: float) -> list[int]:
        """Up to ``limit`` contents, the oldest first, that are this worker's to compress."""
        contents = self._lease(worker, limit, seconds)
        if not contents and self._free_of_the_dead():
            return self._lease(worker, limit, seconds)
        return contents

    def _lease(self, worker: str, limit: int, seconds: float) -> list[int]:
        with self._file.write() as connection:
            rows = connection.execute(
                f"WITH free AS MATERIALIZED (SELECT content_id FROM {self.marks} "
                f"WHERE attempts < ? AND {_FREE} "
                "ORDER BY content_id LIMIT ("
                "SELECT least(?, greatest(?, count(*) / ?)) FROM (SELECT 1 FROM "
                f"{self.marks} WHERE attempts < ? AND {_FREE} LIMIT ?) f) "
                "FOR UPDATE SKIP LOCKED) "
                f"UPDATE {self.marks} p SET leased_by = ?, "
                "leased_until = clock_timestamp() + make_interval(secs => ?) "
                "FROM free WHERE p.content_id = free.content_id RETURNING p.content_id",
                (
                    *(MOST_ATTEMPTS, worker),
                    *(limit, _LEAST, _SHARE, MOST_ATTEMPTS, worker, _SHARE * limit),
                    *(worker, float(seconds)),
                ),
            ).fetchall()
        return sorted(row[0] for row in rows)

    def renew(self, worker: str, seconds: float) -> bool:
        """Keep what the worker has leased for another while.

        What has expired and is another's by now stays so. Rows that are locked are left out: they
        are being finished, and to wait for them could be to wait for one another.
        """
        with self._file.write() as connection:
            connection.execute(
                f"WITH mine AS MATERIALIZED (SELECT content_id FROM {self.marks} "
                "WHERE leased_by = ? FOR UPDATE SKIP LOCKED) "
                f"UPDATE {self.marks} p "
                "SET leased_until = clock_timestamp() + make_interval(secs => ?) "
                "FROM mine WHERE p.content_id = mine.content_id",
                (worker, float(seconds)),
            )
        return True

    def give_back(self, worker: str) -> None:
        """Let others lease at once what the worker has leased and not finished."""
        with self._file.write() as connection:
            connection.execute(
                f"UPDATE {self.marks} SET leased_by = NULL, leased_until = NULL "
                "WHERE leased_by = ?",
                (worker,),
            )

    def lift(self, connection: Connection, content_ids: Sequence[int]) -> None:
        """Take contents out of the backlog if all of their chunks have what they waited for.

        They have not if a worker whose lease has expired was overtaken by one that cut them anew.
        """
        ids = (list(content_ids),)
        connection.execute(  # that is how `Dialect.hold_content` keeps others from cutting them
            "SELECT 1 FROM contents WHERE id = ANY(?) ORDER BY id FOR UPDATE", ids
        )
        connection.execute(
            f"DELETE FROM {self.marks} p WHERE content_id = ANY(?) AND NOT EXISTS ("
            "SELECT 1 FROM chunks c WHERE c.content_id = p.content_id AND NOT EXISTS ("
            f"SELECT 1 FROM {self._made} r WHERE r.chunk_id = c.id))",
            ids,
        )

    def _free_of_the_dead(self) -> bool:
        """Give back what workers have that died on this machine; whether there were any."""
        sql = f"SELECT DISTINCT leased_by FROM {self.marks} WHERE leased_by IS NOT NULL"
        dead = [row[0] for row in self._file.read(sql) if has_died(row[0])]
        for worker in dead:
            self.give_back(worker)
        return bool(dead)


class SpaceBacklog(SharedBacklog):
    """The contents that wait for the latents of one space.

    Those of the space that answers are in ``pending``. While a memory moves to another model, those
    of the new space are in ``pending_next``, until it takes the other's place.
    """

    def __init__(self, file: Database, space_id: int) -> None:
        super().__init__(file)
        self._space_id = space_id
        self._made = f"(SELECT chunk_id FROM latents WHERE space_id = {space_id:d})"

    @property
    def marks(self) -> Marks:
        """The table of its marks.

        Raises:
            OtherModel: The memory has moved to another model, and there is no such space any more.
        """
        spaces = [row[0] for row in self._file.read("SELECT id FROM spaces ORDER BY id")]
        if self._space_id not in spaces:
            raise OtherModel(
                f"{self._file.path}: it has moved to another model meanwhile; open it with that "
                "model, or move it back with: clara-mlx recompress"
            )
        return "pending" if spaces[0] == self._space_id else "pending_next"
