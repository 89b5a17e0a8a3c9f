"""A memory file whose arrivals are moved into it before anything else is read or written."""

from __future__ import annotations

import logging
from pathlib import Path

from clara_mlx.errors import StorageFailed
from clara_mlx.store.arrivals import Arrivals
from clara_mlx.store.driver import transaction
from clara_mlx.store.file import File
from clara_mlx.store.newcomer import insert_record

logger = logging.getLogger(__name__)

# Arrivals moved into the file in one transaction. Each takes some milliseconds, and other writers
# get their turn between two transactions.
_MOVED_TOGETHER = 64

# Bytes of arrivals above which each new one moves some into the file, though its log is held up:
# whoever reads next waits for all of them, which takes about as long as remembering them does
# otherwise, two seconds for each thousand texts of 12 kB.
_MOST_WAITING = 20 << 20


class SettledFile(File):
    """A `File` beside which new memories wait (`arrivals`) while a reader holds up its log."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._arrivals = Arrivals(self.path)

    def new_ones_wait(self) -> bool:
        """Whether new memories should wait; if others do they have to, to be in their order."""
        return self._arrivals.exist() or self.log_is_held_up()

    def let_wait(self, record: bytes) -> None:
        """Let a memory wait, safe on the disk; and move some, if too many wait or the log is free.

        Raises:
            StorageFailed: It could not be written; nothing was kept.
        """
        waiting = 0
        while not waiting:
            with self.errors(), transaction(self.connection) as connection:
                waiting = self._arrivals.add(connection, record)
                if not waiting:
                    connection.execute("COMMIT")
        if waiting > _MOST_WAITING or not self.log_is_held_up():
            self._settle(at_most=_MOVED_TOGETHER)

    def settle(self) -> None:
        """Move all that waits into the file, a part at a time, so that it is found.

        If that can't be done, as the disk is full or another process is writing for long, the log
        says so, and what is in the file can be read all the same.
        """
        if self._arrivals.exist() and not self.connection.in_transaction:
            self._settle()

    def _settle(self, at_most: int | None = None) -> None:
        """Move arrivals into the file and, when none is left, remove what held them."""
        moved = 0
        try:
            while self._arrivals.exist() and (at_most is None or moved < at_most):
                with self.errors(), transaction(self.connection) as connection:
                    records = self._arrivals.take(connection, _MOVED_TOGETHER)
                    for record in records:
                        insert_record(connection, record)
                    connection.execute("COMMIT")
                moved += len(records)
        except StorageFailed as error:
            logger.warning("what was remembered last can't be found yet: %s", error)
