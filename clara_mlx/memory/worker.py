"""A worker: it leases contents from a backlog and compresses them, batch by batch.

The background compression of a memory is one, and so is `clara-mlx work`. In a file one worker at a
time works; a database hands each worker other contents.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from clara_mlx.errors import OtherModel, StoreError, TextTooLong
from clara_mlx.memory.heartbeat import LEASE_SECONDS, Done, Heartbeat
from clara_mlx.model.thread import ModelThread, Priority
from clara_mlx.store import reindexing
from clara_mlx.store.backlog import Backlog
from clara_mlx.store.driver import BUSY_SECONDS
from clara_mlx.store.originals import Originals
from clara_mlx.store.stored import StoredChunk
from clara_mlx.store.workers import Workers

logger = logging.getLogger(__name__)

#: The most contents that are leased at a time.
CONTENTS = 64

#: Contents that are leased from a shared backlog before it is known how long they take.
FIRST_CONTENTS = 8

#: Seconds of work that are leased from a shared backlog: far less than a lease lasts, so that no
#: other worker is idle for long at the end, and enough for batches of chunks of similar length.
SHARE_SECONDS = LEASE_SECONDS / 6

#: Chunks encoded and written at a time; a question waits for no more than these.
CHUNKS = 16

#: The share of the time that is worked while a reasoner on this machine answers somebody; the rest
#: is left to it. Chosen by judgement: bench/beside.py measures it, and has not been run on a Mac.
SHARE_BESIDE_REASONER = 0.25

# Seconds between two looks at whether it still does.
_LOOK_SECONDS = 0.05

#: Seconds until the next look at the backlog when there was nothing to do.
IDLE_SECONDS = 1.0

#: The most of them, to which they grow while a shared backlog stays empty.
MOST_IDLE_SECONDS = 5.0

#: Seconds until the next try after a transient failure, such as a full disk. The first tries are
#: sooner, as a database that has ended a connection mostly takes a new one at once.
PAUSE_SECONDS = 5.0

# Seconds until the first of them; each next one takes twice as long.
_FIRST_PAUSE_SECONDS = 0.25


class Table(Protocol):
    """What says whose work it is: the table of latents, or that of shortened texts."""

    compressor: str
    fingerprint: str


class Work(Protocol):
    """What is to be done with one compressor: `LatentWork` or `TextualWork`."""

    @property
    def backlog(self) -> Backlog:
        """The contents that wait."""

    @property
    def table(self) -> Table:
        """Where the results are kept."""

    def missing(self, content: int, /) -> list[StoredChunk]:
        """The chunks of a content that are still to be compressed."""

    def finish(self) -> None:
        """What is to be done when nothing waits any more."""

    def recut(self, content: int, /) -> list[StoredChunk]:
        """Cut a content anew, as one of its chunks is too long; returns its chunks."""

    def compress(self, texts: list[str], /) -> Sequence[Any]:
        """What becomes of the texts of chunks; called in the model's thread."""

    def put(
        self,
        chunks: Sequence[StoredChunk],
        texts: Sequence[str],
        made: Sequence[Any],
        done: Sequence[int],
        /,
    ) -> None:
        """Store what was made, and take the contents that are ``done`` out of the backlog."""


class Worker:
    """Works through a backlog in the thread that calls `run`; other threads may call the rest.

    Args:
        store: The memory.
        work: What is to be done.
        model_thread: Where the compressor works.
        shown: Whether it shows itself as a worker while it has nothing to do.

    Attributes:
        error: What it stopped for, or paused for.
    """

    def __init__(
        self, store: Originals, work: Work, model_thread: ModelThread, *, shown: bool = False
    ) -> None:
        self.error: Exception | None = None
        self._store = store
        self._work = work
        self._model_thread = model_thread
        table = work.table
        self._heartbeat = Heartbeat(
            work.backlog,
            Workers(store, work.backlog.now),
            table.compressor,
            table.fingerprint,
            shown=shown,
        )
        self._seconds_each: float | None = None  # for a content, of those leased last
        self._stop = threading.Event()
        self._woken = threading.Event()

    @property
    def done(self) -> Done:
        """What it has done so far."""
        return self._heartbeat.done

    def wake(self) -> None:
        """Have it look at the backlog now."""
        self._woken.set()

    def stop(self) -> None:
        """Have it finish the current batch and end; the other contents stay pending."""
        self._stop.set()
        self.wake()

    def run(self, *, once: bool = False) -> None:
        """Work until `stop`, or with ``once`` until nothing waits except what was given up.

        Nothing ends for a failure that may pass, such as a full disk or a database that restarts.

        Raises:
            ClaraError: The memory was moved to another model, is closed, or can't be used.
        """
        idle, pause = IDLE_SECONDS, _FIRST_PAUSE_SECONDS
        try:
            self._heartbeat.start()
            while not self._stop.is_set():
                self._woken.clear()
                try:
                    worked = self._compress_some()
                    if not worked and not self._work.backlog.pending(1):
                        self._work.finish()
                        if once:
                            return
                except StoreError as error:
                    if not error.transient:
                        raise
                    # The disk is full, or a writer is slow: everything stays pending; try again.
                    self._pause(error, min(pause, PAUSE_SECONDS))
                    pause *= 2
                    continue
                pause = _FIRST_PAUSE_SECONDS
                if worked:
                    self.error, idle = None, IDLE_SECONDS
                elif not reindexing.work(self._store, IDLE_SECONDS):
                    # Another process may add to the backlog, or lose its lease: look again soon.
                    self._woken.wait(idle)
                    if self._work.backlog.shared and not once:
                        idle = min(2 * idle, MOST_IDLE_SECONDS)
        except Exception as error:
            self.error = error
            raise
        finally:
            self._heartbeat.end()

    def _pause(self, error: StoreError, seconds: float) -> None:
        if str(error) != str(self.error):
            logger.warning("compressing pauses, and is tried again soon: %s", error)
        self.error = error
        self._woken.wait(seconds)

    def _compress_some(self) -> bool:
        """Compress some of the backlog; false if there was nothing to do here."""
        self._store.settle_soon()
        if not self._work.backlog.pending(1):
            return False
        self._await_log()
        with self._heartbeat.leasing(self._share()) as contents:
            begun = time.monotonic()
            try:
                self._compress(contents)
            except Exception as error:
                if _concerns_all(error):
                    raise
                # One bad content must not hold up the others: try each alone.
                logger.info("each text is tried alone, as of several one failed: %s", error)
                for content in contents:
                    if not self._stop.is_set():
                        self._compress_alone(content)
            if contents:
                self._seconds_each = (time.monotonic() - begun) / len(contents)
        return bool(contents)

    def _share(self) -> int:
        """Number of contents to lease: of a shared backlog, what can be done in a short while."""
        if not self._work.backlog.shared:
            return CONTENTS
        if self._seconds_each is None:
            return FIRST_CONTENTS
        return max(1, min(CONTENTS, int(SHARE_SECONDS / max(self._seconds_each, 1e-3))))

    def _compress_alone(self, content: int) -> None:
        """Compress one content, or note why it failed."""
        try:
            try:
                self._compress([content])
            except TextTooLong:  # it was cut by another tokenizer
                self._work.recut(content)
                self._compress([content])
        except Exception as error:
            if _concerns_all(error):
                raise
            # If it has been forgotten since, there is nothing to note.
            self._work.backlog.note_failure(content, str(error) or repr(error))

    def _compress(self, contents: list[int]) -> None:
        """Compress the chunks of contents that are left, in batches of similar length.

        Each batch is written as it is made, and a content is no longer pending as soon as its last
        chunk is written. Stops between two batches if it is asked to or loses the lease.
        """
        missing: list[StoredChunk] = []
        left: dict[int, int] = {}  # by content, the number of its chunks
        for content in contents:
            chunks = self._work.missing(content)
            left[content] = len(chunks)
            missing += chunks
        self._work.backlog.finish([content for content, count in left.items() if not count])
        missing.sort(key=lambda chunk: chunk.tokens or 0)
        for start in range(0, len(missing), CHUNKS):
            self._await_log()
            if self._stop.is_set() or self._heartbeat.has_lost():
                return
            begun = time.monotonic()
            batch = missing[start : start + CHUNKS]
            texts = [self._store.text(chunk.content_id)[chunk.start : chunk.end] for chunk in batch]
            made = self._model_thread.run(Priority.BACKLOG, partial(self._work.compress, texts))
            for chunk in batch:
                left[chunk.content_id] -= 1
            done = sorted(c for c in {chunk.content_id for chunk in batch} if not left[c])
            self._work.put(batch, texts, made, done)
            tokens = sum(
                chunk.tokens or len(text) // 4 for chunk, text in zip(batch, texts, strict=True)
            )
            seconds = time.monotonic() - begun
            self._heartbeat.note(seconds, len(batch), tokens, len(done))
            self._make_way(seconds * (1 / SHARE_BESIDE_REASONER - 1))

    def _make_way(self, seconds: float) -> None:
        """Pause for a while, or until no reasoner on this machine answers somebody any more."""
        until = time.monotonic() + seconds
        while self._model_thread.is_machine_wanted() and time.monotonic() < until:
            if self._stop.wait(_LOOK_SECONDS) or self._heartbeat.has_lost():
                return

    def _await_log(self) -> None:
        """Wait while a reader holds up a long log, to which each batch would add.

        Raises:
            StoreError: That takes too long; the backlog is looked at again later.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while self._store.log_is_held_up() and not self._stop.is_set():
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self._store.path}: a program keeps it open for reading, so what is written "
                    "can only be added to its log; compressing goes on when that program is done",
                    transient=True,
                )
            self._stop.wait(IDLE_SECONDS)


def _concerns_all(error: Exception) -> bool:
    """Whether an error is not the fault of one content: every other would fail as well now."""
    return isinstance(error, OtherModel) or (isinstance(error, StoreError) and error.transient)
