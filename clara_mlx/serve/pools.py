"""Threads for memory calls, which block: the event loop never waits for the disk or the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Pools:
    """Three kinds of calls that must not wait for each other.

    Preparing a conversation is on every request's way and short. Questions may wait for the model.
    Writing is held back by the memory while compression has a backlog. The order of what reaches
    the model is the memory's own: questions before backlog.

    Threads stay, because each has its own connection to the memory's file.
    """

    def __init__(self) -> None:
        self._prepare = ThreadPoolExecutor(4, "clara-mlx prepare")
        self._ask = ThreadPoolExecutor(4, "clara-mlx ask")
        self._write = ThreadPoolExecutor(2, "clara-mlx write")

    async def prepare(self, work: Callable[[], T]) -> T:
        """Run what a chat request waits for before it is sent."""
        return await _in(self._prepare, work)

    async def ask(self, work: Callable[[], T]) -> T:
        """Run a question to the memory."""
        return await _in(self._ask, work)

    async def write(self, work: Callable[[], T]) -> T:
        """Run what changes the memory."""
        return await _in(self._write, work)

    def close(self) -> None:
        """Finish what is under way and end the threads."""
        for pool in (self._prepare, self._ask, self._write):
            pool.shutdown(wait=True, cancel_futures=True)


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)
