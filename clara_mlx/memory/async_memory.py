"""AsyncMemory: a memory for servers, whose calls never hold up their event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from clara_mlx.memory.asking import Answer
from clara_mlx.memory.memory import Memory, Mode
from clara_mlx.store.filters import Where
from clara_mlx.store.results import Hit, Status

if TYPE_CHECKING:
    from clara_mlx.compressors.compressor import Compressor

_Result = TypeVar("_Result")

# What a thread returns in place of a StopIteration, which may not leave a coroutine.
_END: Any = object()


class AsyncMemory:
    """A `Memory` whose methods are coroutines: each runs in a thread of the event loop's pool.

    The arguments, results and errors are those of `Memory`'s methods of the same names. A task
    that is cancelled stops waiting, but what it has begun goes on: a text is remembered or it is
    not, and never in part.

        async with await AsyncMemory.open("agent.db", clara) as memory:
            handle = await memory.remember(output, source="pytest")
            answer = await memory.ask("Which test failed?")

    Args:
        memory: The memory to use, which this closes.

    Attributes:
        memory: That memory, for what has no coroutine here.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    @classmethod
    async def open(
        cls, path: str | Path, compressor: Compressor | None = None, **settings: Any
    ) -> Self:
        """Open a memory file, or make it; the arguments are those of `Memory.open`."""
        return cls(await asyncio.to_thread(Memory.open, path, compressor, **settings))

    async def close(self, *, flush: bool = False) -> None:
        """As `Memory.close`."""
        await asyncio.to_thread(self.memory.close, flush=flush)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def remember(
        self,
        text: str | bytes,
        *,
        source: str | None = None,
        session: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        handle: str | None = None,
        **more: Any,
    ) -> str:
        """As `Memory.remember`: durable when it returns."""
        given = {"source": source, "session": session, "metadata": metadata, "handle": handle}
        return await self._run(self.memory.remember, text, **given, **more)

    async def recall(
        self,
        query: str,
        k: int = 10,
        where: Where = None,
        *,
        mode: Mode = "hybrid",
        **more: Any,
    ) -> list[Hit]:
        """As `Memory.recall`: the k best chunks for a query, best first."""
        return await self._run(self.memory.recall, query, k, where, mode=mode, **more)

    async def ask(
        self, question: str, k: int = 5, where: Where = None, *, max_tokens: int = 128
    ) -> Answer:
        """As `Memory.ask`: an answer from memory tokens, with its evidence."""
        return await self._run(self.memory.ask, question, k, where, max_tokens=max_tokens)

    async def stream_ask(
        self, question: str, k: int = 5, where: Where = None, *, max_tokens: int = 128
    ) -> AsyncIterator[str | Answer]:
        """As `Memory.stream_ask`: text as it comes, and the whole `Answer` last."""
        pieces: Iterator[Any] = await self._run(
            self.memory.stream_ask, question, k, where, max_tokens=max_tokens
        )
        while (piece := await asyncio.to_thread(next, pieces, _END)) is not _END:
            yield piece

    async def original(self, handle: str) -> str | bytes:
        """As `Memory.original`: the exact original."""
        return await self._run(self.memory.original, handle)

    async def text(self, handle: str) -> str:
        """As `Memory.text`: the original as text, in which spans count."""
        return await self._run(self.memory.text, handle)

    async def has(self, handle: str) -> bool:
        """As `Memory.has`."""
        return await self._run(self.memory.has, handle)

    async def forget(self, handle: str | None = None, *, where: Where = None) -> int:
        """As `Memory.forget`: the number of memories removed."""
        return await self._run(self.memory.forget, handle, where=where)

    async def flush(self, timeout: float | None = None) -> None:
        """As `Memory.flush`: wait until everything is compressed or given up."""
        await self._run(self.memory.flush, timeout)

    async def status(self) -> Status:
        """As `Memory.status`."""
        return await self._run(self.memory.status)

    async def _run(self, method: Callable[..., _Result], /, *given: Any, **named: Any) -> _Result:
        return await asyncio.to_thread(partial(method, *given, **named))
