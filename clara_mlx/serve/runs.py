"""Answers under way: shared by identical requests, and finished when their client has left."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.serve.errors import ApiError

logger = logging.getLogger(__name__)

# Finished answers that nobody has read, the newest.
_MOST_KEPT = 32


@dataclass
class Run:
    """One answer as it comes; any number of listeners can follow it from its beginning.

    Attributes:
        pieces: what a stream has had so far; of an answer in one piece, that one.
        headers: for the client.
        listeners: how many follow it now.
        begun: it has more than keep-alives.
        served: a listener has had all of it.
        error: why there is no more.
    """

    pieces: list[bytes] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    listeners: int = 0
    begun: bool = False
    served: bool = False
    done: bool = False
    error: ApiError | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    finished_at: float = 0.0
    deserted_at: float | None = None
    task: asyncio.Task[None] | None = None
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, piece: bytes, *, starts: bool = True) -> None:
        """Give listeners another piece; a keep-alive does not start the answer."""
        self.pieces.append(piece)
        self._wake()
        if starts:
            self.begun = True
            self.started.set()

    def end(self, error: ApiError | None = None) -> None:
        """There is no more."""
        self.done, self.error, self.finished_at = True, error, time.monotonic()
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
    """The answers under way, by the key of their request. Used from the event loop only.

    Args:
        linger: seconds that an answer goes on without any listener, and that it is kept then.
        joined: called each time that a request shares another one's answer.
    """

    def __init__(self, linger: float, joined: Callable[[], None] = lambda: None) -> None:
        self._linger, self._joined = linger, joined
        self._runs: dict[bytes, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def join(self, key: bytes, work: Callable[[Run], Awaitable[Any]], *, always: bool) -> Run:
        """The answer to a request: one that is under way or waits for its retry, or a new one.

        Two clients may want two different samples. So what somebody is listening to is shared only
        if ``always`` (the request is a retry, or has one answer only); what nobody listens to is.
        """
        self._tidy()
        run = self._runs.get(key)
        if run is not None and (always or not run.listeners) and not (run.done and run.served):
            self._joined()
            run.listeners += 1
            run.deserted_at = None
            return run
        run = Run(listeners=1)
        self._runs[key] = run
        run.task = asyncio.create_task(self._work(run, work))
        self._tasks.add(run.task)
        run.task.add_done_callback(self._tasks.discard)
        return run

    def leave(self, run: Run) -> None:
        """A listener goes; the last one leaves the answer to itself, for a while."""
        run.listeners -= 1
        if run.listeners == 0 and not run.done:
            run.deserted_at = time.monotonic()
            asyncio.get_running_loop().call_later(self._linger, self._give_up, run)

    async def close(self, seconds: float) -> None:
        """Let what is under way end, and cut off what takes longer."""
        tasks = set(self._tasks)
        for run in self._runs.values():
            if run.task and not run.listeners:
                run.task.cancel()  # its client has left, and there will be no retry
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, run: Run, work: Callable[[Run], Awaitable[Any]]) -> None:
        try:
            await work(run)
        except ApiError as error:
            run.end(error)
        except asyncio.CancelledError:
            run.end(ApiError(503, "the server is ending", code="shutting_down", retry=True))
            raise
        except Exception:
            logger.exception("a request failed")
            run.end(ApiError(500, "the gateway failed; its log says why", code="internal_error"))
        else:
            run.end()

    def _give_up(self, run: Run) -> None:
        deserted = run.deserted_at is not None and not run.listeners
        if deserted and not run.done and time.monotonic() - run.deserted_at >= self._linger * 0.99:  # type: ignore[operator]
            logger.info("an answer was ended %g seconds after its client had left", self._linger)
            assert run.task is not None
            run.task.cancel()

    def _tidy(self) -> None:
        now = time.monotonic()
        over = [
            key
            for key, run in self._runs.items()
            if run.done
            and not run.listeners
            and (run.served or run.error or now - run.finished_at > self._linger)
        ]
        for key in over:
            del self._runs[key]
        waiting = [key for key, run in self._runs.items() if run.done and not run.listeners]
        for key in waiting[: max(0, len(waiting) - _MOST_KEPT)]:
            del self._runs[key]
