"""A thread that moves what waits beside a memory file into it, when nothing is in its way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from clara_mlx.errors import ClaraError

# Seconds between two looks at a log that a reader holds up.
_LOOK_SECONDS = 1.0

# Seconds until the next try after a failure, which another writer is, too: the first time, and the
# most, as they double each time.
_RETRY_SECONDS = 0.1
_LONGEST_RETRY_SECONDS = 10.0


class Mover:
    """A thread that works while there is work, and pauses as long as it worked, for other writers.

    Args:
        is_work: Whether something can be moved now; None if nothing waits, which ends the thread.
        work: Moves some of it.
    """

    def __init__(self, is_work: Callable[[], bool | None], work: Callable[[], None]) -> None:
        self._is_work = is_work
        self._work = work
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # of the thread's beginning and end
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the thread, unless it is running."""
        with self._lock:
            running = self._thread is not None and self._thread.is_alive()
            if not running and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="clara-mlx mover", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End the thread after the step that it is at; it does not start again."""
        self._stop.set()
        if (thread := self._thread) is not None and thread.is_alive():
            thread.join()

    def _run(self) -> None:
        retry = _RETRY_SECONDS
        while not self._stop.is_set():
            begun = time.monotonic()
            pause = _LOOK_SECONDS
            try:
                with self._lock:
                    if (ready := self._is_work()) is None:
                        self._thread = None
                        return
                if ready:
                    self._work()
                    pause = time.monotonic() - begun
                retry = _RETRY_SECONDS
            except ClaraError:  # whoever reads next says what is wrong
                pause = retry
                retry = min(2 * retry, _LONGEST_RETRY_SECONDS)
            self._stop.wait(pause)
