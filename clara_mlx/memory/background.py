"""The background work: a thread that compresses what waits, and resumes after a stop."""

from __future__ import annotations

import threading
import time

from clara_mlx.errors import Progress, StoreError
from clara_mlx.memory.heartbeat import Done
from clara_mlx.memory.worker import Work, Worker
from clara_mlx.model.thread import ModelThread
from clara_mlx.store.originals import Originals

#: Pending contents above which a writer is slowed down.
BACKLOG = 10_000

#: The most seconds for which one call of a writer is held back.
BACKLOG_SECONDS = 5.0

# Seconds between two looks at the backlog while somebody waits for it: at first, and at most.
_LOOK_SECONDS = 0.01
_MOST_LOOK_SECONDS = 0.25


class BackgroundCompression:
    """A thread in which a `Worker` works through a memory's backlog."""

    def __init__(self, store: Originals, work: Work, model_thread: ModelThread) -> None:
        self._store = store
        self._work = work
        self._model_thread = model_thread
        self._once = False
        self._ended = threading.Event()
        #: What ended the thread, if it was not `stop`.
        self.failure: Exception | None = None
        self._worker = Worker(store, work, model_thread)
        self._thread = threading.Thread(target=self._run, name="clara-mlx compressor", daemon=True)

    @property
    def error(self) -> Exception | None:
        """What it stopped for, or paused for."""
        return self._worker.error

    @property
    def done(self) -> Done:
        """What it has done so far."""
        return self._worker.done

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self, *, shown: bool = False, once: bool = False) -> None:
        """Start the thread, unless it was started before.

        Args:
            shown: Whether it shows itself as a worker also while it has nothing to do.
            once: Whether it ends when nothing waits any more.
        """
        if not self._thread.ident:
            if shown:
                self._worker = Worker(self._store, self._work, self._model_thread, shown=True)
            self._once = once
            self._thread.start()

    def _run(self) -> None:
        try:
            self._worker.run(once=self._once)
        except Exception as error:
            self.failure = error
        finally:
            self._ended.set()

    def wake(self) -> None:
        """Let the thread look at the backlog now."""
        self._worker.wake()

    def hold_back(self) -> None:
        """Make a writer that is far ahead of the thread wait a little; no writer is refused."""
        deadline = time.monotonic() + BACKLOG_SECONDS
        while self.running and self._work.backlog.exceeds(BACKLOG) and time.monotonic() < deadline:
            time.sleep(0.05)

    def has_ended(self, seconds: float) -> bool:
        """Whether the thread has ended; waits for that, but no longer than ``seconds``.

        An interrupt may come meanwhile, which Python 3.11 would take for the thread's end if it
        came while the thread is joined.
        """
        return self._ended.wait(seconds)

    def stop(self) -> None:
        """Finish the current batch and end the thread; the other contents stay pending."""
        self._worker.stop()
        if self._thread.ident:
            self._thread.join()

    def wait(self, timeout: float | None, progress: Progress | None = None) -> None:
        """Wait until nothing is pending except what was given up, whoever compresses it.

        Raises:
            StoreError: The thread failed, or ``timeout`` seconds have passed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.running:
            self._worker.error = None  # of an earlier try
        self.wake()
        total = self._work.backlog.count()
        look = _LOOK_SECONDS
        while self._work.backlog.pending(1):
            if progress:
                progress(total - self._work.backlog.count(), total)
            if not self.running or self.error:
                raise StoreError(f"compression stopped: {self.error}") from self.error
            if deadline is not None and time.monotonic() > deadline:
                raise StoreError(
                    f"compression did not finish within {timeout:g} s; it goes on in the background"
                )
            time.sleep(look)
            look = min(1.2 * look, _MOST_LOOK_SECONDS)
        if progress:
            progress(total, total)
