"""Threads for memory calls, which block: the event loop never waits for the disk or the model."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Threads that prepare conversations: SQLite and regular expressions, with little to gain from more.
_PREPARE_THREADS = 4

# Threads that ask the memory; most of their time they wait for the model.
_ASK_THREADS = 4

# Threads that write. SQLite lets one write at a time, while the other compresses its text.
_WRITE_THREADS = 2

# Threads that wait for the process that prepares heavy conversations: it does one thing at a time.
_DISTANT_THREADS = 1


class Pools:
    """Four kinds of calls that must not wait for each other.

    Preparing a conversation is short and delays every request. Questions may wait for the model.
    Writing is held back by the memory while compression has a backlog. The memory itself decides in
    which order work reaches the model: questions before backlog. What is distant waits for another
    process, in the order in which it came.

    Threads stay, because each has its own connection to the memory's file.
    """

    def __init__(self) -> None:
        self._prepare = ThreadPoolExecutor(_PREPARE_THREADS, "clara-mlx prepare")
        self._ask = ThreadPoolExecutor(_ASK_THREADS, "clara-mlx ask")
        self._write = ThreadPoolExecutor(_WRITE_THREADS, "clara-mlx write")
        self._distant = ThreadPoolExecutor(_DISTANT_THREADS, "clara-mlx distant")

    async def prepare(self, work: Callable[[], T], *, distant: bool = False) -> T:
        """Run what a chat request waits for before it is sent on."""
        return await _run(self._distant if distant else self._prepare, work)

    async def ask(self, work: Callable[[], T]) -> T:
        """Run a question to the memory."""
        return await _run(self._ask, work)

    async def write(self, work: Callable[[], T], *, distant: bool = False) -> T:
        """Run what changes the memory."""
        return await _run(self._distant if distant else self._write, work)

    def close(self, seconds: float = math.inf) -> bool:
        """End the threads, with the calls that are running; whether they ended in time."""
        pools = (self._prepare, self._ask, self._write, self._distant)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)

        def wait() -> None:
            for pool in pools:
                pool.shutdown(wait=True)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        waiting.join(None if seconds == math.inf else seconds)
        return not waiting.is_alive()


async def _run(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)
