"""A memory file beside which new memories wait, and how they are moved into it.

Who looks for a handle finds it where it waits. Who searches, lists or counts on the file being
complete calls `SettledFile.settle` first. A thread moves the rest as soon as the log is free.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from functools import partial

from clara_mlx.errors import StorageFailed
from clara_mlx.store.arrivals import Arrivals
from clara_mlx.store.connection import Connection
from clara_mlx.store.driver import transaction
from clara_mlx.store.file import File
from clara_mlx.store.mover import Mover
from clara_mlx.store.newcomer import handle_of, insert_record
from clara_mlx.store.protocol import HandleTaken

logger = logging.getLogger(__name__)

# Seconds for which one transaction moves arrivals; other writers wait for no more than that and the
# commit, which takes about as long again.
_SLICE_SECONDS = 0.1

# Bytes of arrivals above which each new one moves some into the file, though its log is held up.
_MOST_WAITING = 20 << 20


class SettledFile(File):
    """A `File` beside which new memories wait (`arrivals`) while a reader holds up its log."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._mover = Mover(self._is_work, partial(self._move_some, patient=False))
        super().__init__(path)
        self._arrivals = Arrivals(self.path)

    def close(self) -> None:
        """Close the connections of all threads; what waits goes on waiting."""
        self._mover.stop()
        super().close()

    # -- waiting ---------------------------------------------------------------------------------

    def new_ones_wait(self) -> bool:
        """Whether new memories should wait; if others do they have to, to be in their order."""
        return self._arrivals.exist() or self.log_is_held_up()

    def let_wait(self, record: bytes) -> None:
        """Let a memory wait, safe on the disk; and move some, if too many wait or the log is free.

        Raises:
            HandleTaken: A memory has its handle.
            StorageFailed: It could not be written; nothing was kept.
        """
        self.check_writable()
        waiting = 0
        while not waiting:
            with self.errors(), transaction(self.connection) as connection:
                self.check_new(connection, handle_of(record))
                waiting = self._arrivals.add(connection, record)
                if not waiting:
                    connection.execute("COMMIT")
        if waiting > _MOST_WAITING or not self.log_is_held_up():
            self._try(self._move_some)
        self._mover.start()

    def check_new(self, connection: Connection, handle: str) -> None:
        """Check that no memory has a handle, in a transaction that writes.

        Raises:
            HandleTaken: One has it.
        """
        if self._arrivals.exist() and handle in self._arrivals.waiting(connection):
            raise HandleTaken(self.path, handle)
        super().check_new(connection, handle)

    def number_waiting(self) -> int:
        """Number of memories that wait."""
        if not self._arrivals.exist():
            return 0
        with self.errors():
            return len(self._arrivals.waiting(self.connection))

    def waiting_record(self, handle: str) -> bytes | None:
        """What was written down of a memory that waits; None if none with this handle does."""
        if not isinstance(handle, str) or not self._arrivals.exist():
            return None
        with self.errors():
            return self._arrivals.record(self.connection, handle)

    # -- moving ----------------------------------------------------------------------------------

    def settle(self, seconds: float | None = None) -> None:
        """Move all that waits into the file, a part at a time, so that it is found.

        If that takes longer than ``seconds`` or can't be done, as the disk is full or another
        process is writing for long, the log says so, and what is in the file can be read all the
        same. A thread then goes on.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._arrivals.exist() and not self.connection.in_transaction:
            if deadline is not None and time.monotonic() > deadline:
                logger.warning(
                    "%s: %d memories can't be found by a search yet; they were remembered beside a "
                    "program that kept the file open for reading, and are being moved into it",
                    self.path,
                    self.number_waiting(),
                )
                self._mover.start()
                return
            if not self._try(self._move_some):
                return

    def settle_soon(self) -> None:
        """Let a thread move what waits as soon as the log is free."""
        if self._arrivals.exist():
            self._mover.start()

    def bring(self, handles: Collection[str]) -> None:
        """Move those memories of these that wait into the file before their turn."""
        if not self._arrivals.exist() or self.connection.in_transaction:
            return

        def take() -> None:
            self.check_writable()
            with self.errors(), transaction(self.connection) as connection:
                self._arrivals.take_early(connection, handles, partial(insert_record, connection))
                connection.execute("COMMIT")

        with self.errors():
            waiting = self._arrivals.waiting(self.connection)
        if any(handle in waiting for handle in handles):
            self._try(take)

    def _move_some(self, *, patient: bool = True) -> None:
        """Move arrivals for a short time and, when none is left, remove what held them.

        Raises:
            StorageFailed: The disk is full, or another connection writes; unless ``patient`` that
                is so at once.
        """
        self.check_writable()
        with self.errors(), nullcontext() if patient else self.impatience():
            until = time.monotonic() + _SLICE_SECONDS

            def insert(record: bytes) -> bool:
                insert_record(self.connection, record)
                return time.monotonic() < until

            while self._arrivals.exist():  # the last of these transactions removes it
                with transaction(self.connection) as connection:
                    self._arrivals.take(connection, insert)
                    connection.execute("COMMIT")
                if time.monotonic() > until:
                    return

    def _try(self, move: Callable[[], None]) -> bool:
        """Move arrivals; if that fails the log says so, and they go on waiting."""
        try:
            move()
        except StorageFailed as error:
            logger.warning("what was remembered last can't be found yet: %s", error)
            return False
        return True

    def _is_work(self) -> bool | None:
        """Whether there are arrivals that can be moved; None if there is none."""
        if not self._arrivals.exist():
            return None
        return not self.log_is_held_up()
