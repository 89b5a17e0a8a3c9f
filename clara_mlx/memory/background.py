"""The background work: pending contents are compressed, in batches, and resume after a stop."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from clara_mlx.errors import ClaraError, OtherModel, Progress, StoreError, TextTooLong
from clara_mlx.model.thread import ModelThread, Priority
from clara_mlx.store import atomic, reindexing
from clara_mlx.store.backlog import Backlog
from clara_mlx.store.driver import BUSY_SECONDS
from clara_mlx.store.originals import Originals, StoredChunk

#: Contents taken from the backlog at a time.
CONTENTS = 64

#: Chunks encoded and written at a time; a question waits for no more than these.
CHUNKS = 16

#: Seconds a process may be silent before another one takes over the compression.
LEASE_SECONDS = 60.0

#: Seconds until the next look at the backlog when there was nothing to do.
IDLE_SECONDS = 1.0

#: Seconds until the next try after a transient failure, such as a full disk.
PAUSE_SECONDS = 5.0

#: Pending contents above which a writer is slowed down.
BACKLOG = 10_000

#: The most seconds for which one call of a writer is held back.
BACKLOG_SECONDS = 5.0

_HOST = socket.gethostname().replace(" ", "-")


class Work(Protocol):
    """What is to be done with one compressor: `LatentWork` or `TextualWork`."""

    @property
    def lease(self) -> str:
        """The name of the lease, as it is stored in the file."""

    @property
    def backlog(self) -> Backlog:
        """The contents that wait."""

    def missing(self, content: int, /) -> list[StoredChunk]:
        """The chunks of a content that are still to be compressed."""

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


class BackgroundCompression:
    """A thread that works through a file's backlog while it holds the file's lease."""

    def __init__(self, store: Originals, work: Work, model_thread: ModelThread) -> None:
        self.error: Exception | None = None  # what it stopped for, or paused for
        self._store = store
        self._work = work
        self._model_thread = model_thread
        self._owner = f"{_HOST} {os.getpid()} {secrets.token_hex(4)}"  # `_has_died` reads it
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clara-mlx compressor", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, unless it was started before."""
        if not self._thread.ident:
            self._thread.start()

    def wake(self) -> None:
        """Let the thread look at the backlog now."""
        self._woken.set()

    def hold_back(self) -> None:
        """Make a writer that is far ahead of the thread wait a little; no writer is refused."""
        deadline = time.monotonic() + BACKLOG_SECONDS
        while self.running and self._work.backlog.count() > BACKLOG and time.monotonic() < deadline:
            time.sleep(0.05)

    def stop(self) -> None:
        """Finish the current batch and end the thread; the other contents stay pending."""
        self._stop.set()
        self.wake()
        if self._thread.ident:
            self._thread.join()

    def wait(self, timeout: float | None, progress: Progress | None = None) -> None:
        """Wait until nothing is pending except what was given up.

        Raises:
            StoreError: The thread failed, or ``timeout`` seconds have passed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.running:
            self.error = None  # of an earlier try
        self.wake()
        total = self._work.backlog.count()
        while self._work.backlog.pending(1):
            if progress:
                progress(total - self._work.backlog.count(), total)
            if not self.running or self.error:
                raise StoreError(f"compression stopped: {self.error}") from self.error
            if deadline is not None and time.monotonic() > deadline:
                raise StoreError(
                    f"compression did not finish within {timeout:g} s; it goes on in the background"
                )
            time.sleep(0.01)
        if progress:
            progress(total, total)

    def _run(self) -> None:
        """Work through the backlog until `stop`, in the thread."""
        try:
            while not self._stop.is_set():
                self._woken.clear()
                try:
                    worked = self._compress_some()
                except StoreError as error:
                    if not error.transient:
                        raise
                    # The disk is full, or a writer is slow: everything stays pending; try again.
                    self.error = error
                    self._woken.wait(PAUSE_SECONDS)
                    continue
                if not worked and not reindexing.work(self._store, IDLE_SECONDS):
                    # Another process may add to the backlog, or lose its lease: look again soon.
                    self._woken.wait(IDLE_SECONDS)
        except Exception as error:
            self.error = error
        finally:
            with contextlib.suppress(ClaraError):
                self._work.backlog.give_up_lease(self._work.lease, self._owner)

    def _compress_some(self) -> bool:
        """Compress some of the backlog; false if there was nothing to do here."""
        self._store.settle_soon()
        contents = self._work.backlog.pending(CONTENTS)
        if contents:
            self._await_log()
        if not contents or not self._take_lease():
            return False
        try:
            self._compress(contents)
        except Exception as error:
            if _concerns_all(error):
                raise
            # One bad content must not hold up the others: try each alone.
            for content in contents:
                if not self._stop.is_set():
                    self._compress_alone(content)
        return True

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

    def _take_lease(self) -> bool:
        """Take or renew the lease; at once if its owner is a process here that has died."""
        if self._work.backlog.take_lease(self._work.lease, self._owner, LEASE_SECONDS):
            return True
        other = self._work.backlog.lease_owner(self._work.lease)
        if other and _has_died(other):
            self._work.backlog.give_up_lease(self._work.lease, other)
            return self._work.backlog.take_lease(self._work.lease, self._owner, LEASE_SECONDS)
        return False

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
            if self._stop.is_set():
                return
            batch = missing[start : start + CHUNKS]
            texts = [self._store.text(chunk.content_id)[chunk.start : chunk.end] for chunk in batch]
            made = self._model_thread.run(Priority.BACKLOG, partial(self._work.compress, texts))
            for chunk in batch:
                left[chunk.content_id] -= 1
            done = [c for c in {chunk.content_id for chunk in batch} if not left[c]]
            self._work.put(batch, texts, made, done)
            if not self._take_lease():  # it expired while this process slept
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


def _has_died(owner: str) -> bool:
    """Whether a lease's owner was a process of this machine that has ended."""
    match owner.split(" "):
        case [host, pid, _] if host == _HOST and pid.isdigit():
            return not atomic.is_alive(int(pid))
    return False
