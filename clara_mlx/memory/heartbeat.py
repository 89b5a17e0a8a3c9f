"""The heartbeat of a worker: it keeps what the worker has leased, and says how the work goes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from clara_mlx.errors import ClaraError
from clara_mlx.store.backlog import Backlog
from clara_mlx.store.workers import Worker, Workers, new_worker_name

logger = logging.getLogger(__name__)

#: Seconds that a lease lasts. A worker that has died, or whose machine sleeps, holds up what it
#: had leased for no longer than that.
LEASE_SECONDS = 60.0

#: Seconds between two beats: a lease survives several that fail, as the database restarts.
BEAT_SECONDS = 10.0

# Batches by which the rate of the work is counted.
_RECENT = 64


@dataclass
class Done:
    """What a worker has done since it began."""

    contents: int = 0  # that are complete
    chunks: int = 0  # that were compressed
    tokens: int = 0  # of these chunks, about


class Heartbeat:
    """A thread that renews a worker's lease while the model is at work, which may take longer.

    Args:
        backlog: What the worker leases from.
        compressor: The compressor's name.
        fingerprint: Its model's.
        shown: Whether the worker shows itself while it has nothing to do. Those that don't write
            nothing then, and nothing of work that is done before the first beat.

    Attributes:
        name: The worker's.
        done: What it has done so far.
    """

    def __init__(
        self, backlog: Backlog, workers: Workers, compressor: str, fingerprint: str, *, shown: bool
    ) -> None:
        self.name = new_worker_name()
        self.done = Done()
        self._backlog = backlog
        self._workers = workers
        self._about = compressor, fingerprint
        self._shown = shown
        self._since = 0.0  # as the database's clock has it; 0: not said yet
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=_RECENT)
        self._renewed_at = 0.0
        self._leases = False
        self._is_said = False  # whether there is a row of this worker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clara-mlx heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._shown:
            self._beat()
        self._thread.start()

    def end(self) -> None:
        """End the thread, give back what is leased, and remove what was said."""
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        with suppress(ClaraError):  # what can't be given back now will expire
            self._backlog.give_back(self.name)
        with suppress(ClaraError):
            if self._is_said:
                self._workers.leave(self.name)

    @contextmanager
    def leasing(self, limit: int) -> Iterator[list[int]]:
        """Lease contents for a block, and keep them leased during it."""
        begun = time.time()
        contents = self._backlog.lease(self.name, limit, LEASE_SECONDS)
        self._renewed_at = begun
        self._leases = bool(contents)
        try:
            yield contents
        finally:
            self._leases = False

    def has_lost(self) -> bool:
        """Whether the lease may be another worker's now: this machine slept, or was cut off."""
        return time.time() - self._renewed_at > LEASE_SECONDS

    def note(self, seconds: float, chunks: int, tokens: int, contents: int) -> None:
        """Count a batch that was written, and the contents that it completed."""
        self._recent.append((seconds, chunks, tokens))
        self.done.chunks += chunks
        self.done.tokens += tokens
        self.done.contents += contents

    def _run(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        """Renew the lease, and say how the work goes; both are tried again at the next beat."""
        try:
            if self._leases:
                begun = time.time()
                kept = self._backlog.renew(self.name, LEASE_SECONDS)
                self._renewed_at = begun if kept else 0.0
            if self._leases or self._shown:
                self._workers.report(self._worker())
                self._is_said = True
            elif self._is_said:
                self._workers.leave(self.name)
                self._is_said = False
        except ClaraError as error:
            logger.debug("no heartbeat: %s", error)

    def _worker(self) -> Worker:
        self._since = self._since or self._backlog.now()
        recent = list(self._recent)
        return Worker(
            self.name,
            *self._about,
            since=self._since,
            heard_at=0.0,  # the register has the clock
            contents=self.done.contents,
            chunks=self.done.chunks,
            tokens=self.done.tokens,
            seconds=sum(seconds for seconds, _, _ in recent),
            recent_chunks=sum(chunks for _, chunks, _ in recent),
            recent_tokens=sum(tokens for _, _, tokens in recent),
        )
