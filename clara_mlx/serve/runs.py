"""Answers in the making: shared by identical requests, and finished when their client has left."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.serve.errors import ApiError

logger = logging.getLogger(__name__)

# The most finished answers that are kept for a retry though nobody has read them; the oldest go.
_MOST_KEPT = 32


@dataclass
class Run:
    """One answer as it comes; any number of listeners can follow it from its beginning."""

    pieces: list[bytes] = field(default_factory=list)  # of a stream so far; or one whole answer
    headers: dict[str, str] = field(default_factory=dict)  # for the client
    listeners: int = 0  # clients that follow it now
    begun: bool = False  # whether anything but keep-alives was sent
    shown: bool = False  # whether a listener has had a part of it
    served: bool = False  # whether a listener has had all of it
    # What ends a begun stream with an error, where the writer has to know what came before.
    error_event: Callable[[ApiError], bytes] | None = None
    done: bool = False  # whether there will be no more
    error: ApiError | None = None  # why there is no more, if it failed
    started: asyncio.Event = field(default_factory=asyncio.Event)  # set when it begins, or ends
    finished_at: float = 0.0  # when it was done, by `time.monotonic`
    deserted_at: float | None = None  # when the last listener left, by `time.monotonic`
    task: asyncio.Task[None] | None = None  # makes the answer
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_given_up(self) -> bool:
        """Whether its client has left in the middle of it.

        Whoever saw a part and stopped it has no use for the rest, and wants another answer if it
        asks again.
        """
        return self.shown and not self.served and not self.listeners

    @property
    def is_over(self) -> bool:
        """Whether whoever sends the same request wants another answer."""
        return self.is_given_up or (self.done and self.served)

    def send(self, piece: bytes, *, starts: bool = True) -> None:
        """Give listeners another piece; a keep-alive does not start the answer."""
        self.pieces.append(piece)
        self._wake()
        if starts:
            self.begun = True
            self.started.set()

    def end(self, error: ApiError | None = None) -> None:
        """Tell listeners that there is no more, and why if it failed."""
        self.done = True
        self.error = error
        self.finished_at = time.monotonic()
        self._wake()
        self.started.set()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def follow(self, silence: float | None = None) -> AsyncIterator[bytes | None]:
        """The pieces from the first on; None after each ``silence`` seconds without one."""
        place = 0
        while True:
            while place < len(self.pieces):
                place += 1
                yield self.pieces[place - 1]
            if self.done:
                self.served = True
                return
            try:
                async with asyncio.timeout(silence):
                    await self._more.wait()
            except TimeoutError:
                yield None


class Runs:
    """The answers in the making, by the key of their request. Used from the event loop only.

    Args:
        linger: Seconds that an answer continues without any listener, and is kept when it is done.
        on_join: Called each time that a request shares another one's answer.
    """

    def __init__(self, linger: float, on_join: Callable[[], None] = lambda: None) -> None:
        self._linger = linger
        self._on_join = on_join
        self._runs: dict[bytes, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._end_at = math.inf  # when answers are ended, by the loop's clock
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def join(self, key: bytes, work: Callable[[Run], Awaitable[Any]], *, always: bool) -> Run:
        """The answer to a request: one in the making, one that waits for its retry, or a new one.

        Two clients may want two different samples. So an answer that somebody listens to is shared
        only if ``always`` is true (the request is a retry, or has one answer only). An answer that
        nobody listens to is always shared, unless somebody has seen a part of it and left.
        """
        self._drop_finished()
        run = self._runs.get(key)
        if run is not None and (always or not run.listeners) and not run.is_over:
            self._on_join()
            run.listeners += 1
            run.deserted_at = None
            return run
        run = Run(listeners=1)
        if self._is_closed:
            run.end(_shutting_down())
            return run
        self._runs[key] = run
        run.task = asyncio.create_task(self._work(run, work))
        self._tasks.add(run.task)
        run.task.add_done_callback(self._tasks.discard)
        return run

    def leave(self, run: Run) -> None:
        """Take a listener away; without any, an answer continues for ``linger`` seconds.

        If a part of it has been shown it ends at once: the reasoner has other things to do.
        """
        run.listeners -= 1
        if run.listeners == 0 and not run.done:
            if run.task and (run.is_given_up or self._end_at < math.inf):
                run.task.cancel()
                return
            run.deserted_at = time.monotonic()
            asyncio.get_running_loop().call_later(self._linger, self._cancel_if_deserted, run)

    async def close(self, seconds: float) -> None:
        """Let answers finish for this long since the first call, then end them with an error."""
        clock = asyncio.get_running_loop().time
        self._end_at = min(self._end_at, clock() + seconds)
        for run in self._runs.values():
            if run.task and not run.listeners:
                run.task.cancel()  # its client has left, and there will be no retry
        while self._tasks and (left := self._end_at - clock()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)
        self._is_closed = True
        late = set(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _work(self, run: Run, work: Callable[[Run], Awaitable[Any]]) -> None:
        """Make the answer, and end the run whatever happens."""
        try:
            await work(run)
        except ApiError as error:
            run.end(error)
        except asyncio.CancelledError:
            run.end(_shutting_down())
            raise
        except Exception:
            logger.exception("a request failed")
            run.end(ApiError(500, "the gateway failed; its log says why", code="internal_error"))
        else:
            run.end()

    def _cancel_if_deserted(self, run: Run) -> None:
        if run.deserted_at is None or run.listeners or run.done:
            return
        # A client may have come and left again since this was scheduled.
        if time.monotonic() - run.deserted_at >= self._linger * 0.99:
            logger.info("an answer was cancelled %g seconds after its client left", self._linger)
            assert run.task is not None
            run.task.cancel()

    def _drop_finished(self) -> None:
        """Forget the answers that no retry will ask for, and the oldest if there are too many."""
        now = time.monotonic()
        finished = {key: r for key, r in self._runs.items() if r.done and not r.listeners}
        for key, run in finished.items():
            if run.is_over or run.error or now - run.finished_at > self._linger:
                del self._runs[key]
        waiting = [key for key in finished if key in self._runs]
        for key in waiting[: max(0, len(waiting) - _MOST_KEPT)]:
            del self._runs[key]


def _shutting_down() -> ApiError:
    message = "the gateway is shutting down, or gave up on this answer"
    return ApiError(503, message, code="shutting_down", retry=True)
