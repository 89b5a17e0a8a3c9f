"""Long texts are remembered in the background, some at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from clara_mlx.context import Budget, Context
from clara_mlx.context.messages import Message
from clara_mlx.memory import Memory
from clara_mlx.serve import Remote, Settings
from clara_mlx.serve import desk as desks
from clara_mlx.serve.callers import Caller, Name
from clara_mlx.serve.desk import NOTHING, NearDesk
from clara_mlx.serve.observer import Observer
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.preparing import Preparer
from clara_mlx.serve.request import ChatRequest

SETTINGS = Settings(Remote("http://127.0.0.1:1/v1"), budget=Budget())


def desk_of(memory: Memory, session: str, outputs: list[str], results: int = 1) -> NearDesk:
    """A conversation with these outputs; ``results`` calls are in one message."""
    messages: list[Message] = [{"role": "user", "content": f"Go, {session}."}]
    for start in range(0, len(outputs), results):
        some = list(enumerate(outputs))[start : start + results]
        function = {"name": "run", "arguments": '{"command": "make"}'}
        calls = [{"id": f"c{n}", "type": "function", "function": function} for n, _ in some]
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": f"c{n}", "content": t} for n, t in some]
    request = ChatRequest(messages, [], {}, stream=False, usage=False, key=b"")
    context = Context(memory)
    return NearDesk(
        Preparer(SETTINGS, context), context, request, Name(session, True), Caller(None, {}), 0
    )


@pytest.mark.parametrize("results", [1, 3])
def test_some_at_a_time_is_all_in_the_end(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, results: int
) -> None:
    monkeypatch.setattr(desks, "_AT_ONE_GO", 1000)
    outputs = [f"{n} " + f"line {n}\n" * 60 for n in range(9)]
    desk = desk_of(memory, "a", outputs, results)
    before, has_more, steps = NOTHING, True, 0
    while has_more:
        before, has_more = desk.observe([], before)
        steps += 1
    assert steps > 2 and before[0] == len(desk.request.messages)
    kept = [one for one in memory.list() if one.metadata.get("command")]
    assert [memory.original(one.handle) for one in kept] == outputs
    # Each is known by its call, wherever the steps ended.
    assert {(one.source, one.metadata["command"]) for one in kept} == {("run", "make")}
    assert desk.observe([], before) == (before, False)


def test_others_get_their_turn(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation with much to remember does not hold up a short one."""
    monkeypatch.setattr(desks, "_AT_ONE_GO", 1000)
    pools = Pools()
    observer = Observer(pools)

    async def work() -> None:
        observer.remember_soon(desk_of(memory, "long", [f"{n}" * 999 for n in range(9)]), [])
        observer.remember_soon(desk_of(memory, "short", ["short" * 99]), [])
        end = time.monotonic() + 30
        while memory.status().memories < 10 and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await observer.close(5)

    try:
        asyncio.run(work())
    finally:
        pools.close()
    order: list[Any] = [one.session for one in memory.list()]
    assert len(order) == 10 and order.index("short") < 4
