"""A memory for servers: the same results as `Memory`'s, and a loop that is never held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clara_mlx import Answer, AsyncMemory, Memory, StoreError, load


def test_it_gives_what_memory_gives(tmp_path: Path, folder: Callable[..., Path]) -> None:
    clara = load(folder("c16", "e2e"))

    async def work() -> tuple[Any, ...]:
        async with await AsyncMemory.open(tmp_path / "m.db", clara) as memory:
            handle = await memory.remember("tests/test_io.py::test_load FAILED", source="pytest")
            await memory.flush()
            hits = await memory.recall("test_load", k=1, where={"source": "pytest"})
            pieces = [piece async for piece in memory.stream_ask("test_load?", max_tokens=2)]
            answer = await memory.ask("test_load?", max_tokens=2)
            status = await memory.status()
            assert await memory.has(handle)
            assert await memory.text(handle) == await memory.original(handle)
            with pytest.raises(StoreError, match="no memory"):
                await memory.original("m-0000000000")
            return handle, hits, pieces, answer, status

    handle, hits, pieces, answer, status = asyncio.run(work())
    assert status.compressed == 1 and hits[0].handle == handle
    assert isinstance(pieces[-1], Answer) and "".join(pieces[:-1]) == answer.text
    with Memory.open(tmp_path / "m.db", clara) as memory:
        assert memory.recall("test_load", 1, {"source": "pytest"})[0].text == hits[0].text
        assert memory.ask("test_load?", max_tokens=2).text == answer.text
        assert memory.forget(handle) == 1


def test_the_loop_goes_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_there, may_go_on = threading.Event(), threading.Event()
    remember = Memory.remember

    def slowly(self: Memory, *given: Any, **named: Any) -> str:
        is_there.set()
        assert may_go_on.wait(30)
        return remember(self, *given, **named)

    monkeypatch.setattr(Memory, "remember", slowly)

    async def work() -> int:
        async with await AsyncMemory.open(tmp_path / "m.db") as memory:
            first = asyncio.create_task(memory.remember("one"))
            cancelled = asyncio.create_task(memory.remember("two"))
            await asyncio.to_thread(is_there.wait, 30)
            assert (await memory.status()).memories == 0  # others are served meanwhile
            cancelled.cancel()
            may_go_on.set()
            assert (await memory.original(await first)) == "one"
            while not await memory.recall("two"):  # begun, so it is done
                await asyncio.sleep(0.01)
            return (await memory.status()).memories

    assert asyncio.run(work()) == 2
