"""A server that keeps nothing of a prompt that changes: rarer, deeper, and when it is free."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from trajectories import SMALL, call, requests, trajectory

from clara_mlx.context import Context, Prepared
from clara_mlx.memory import Memory

WHOLE = replace(SMALL, cache="whole")
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]


def read_whole(results: list[Prepared]) -> int:
    """Tokens that such a server prefills: all of a prompt in which something has changed."""
    total = results[0].tokens
    for before, after in pairwise(results):
        appended = after.messages[: len(before.messages)] == before.messages
        total += after.tokens - (before.tokens if appended else 0)
    return total


@pytest.mark.parametrize("shape", [(40, 60), (60, 20)])
def test_it_reads_less_and_never_more_than_twice_what_came(
    memory: Memory, shape: tuple[int, int]
) -> None:
    steps = trajectory(*shape)
    results = requests(Context(memory, budget=WHOLE), steps)
    other = requests(Context(memory, budget=SMALL), steps, session="other")
    came = results[-1].original_tokens
    assert read_whole(results) <= read_whole(other)
    assert read_whole(results) <= 2 * came
    made = [result.exchange for result in results if result.exchange]
    assert len(made) >= 2 and len(made) <= sum(1 for result in other if result.exchange)
    for exchange in made:
        assert exchange.kept == 0 and exchange.read == exchange.after
        assert exchange.is_worth_it or exchange.before > WHOLE.limit


def grown(context: Context, share: float, **given: Any) -> list[dict[str, Any]]:
    """A conversation that has grown to a share of the limit, request by request."""
    messages: list[dict[str, Any]] = []
    for added in trajectory(30, 20):
        messages += added
        prepared = context.prepare(messages, session="s", **given)
        assert prepared.exchange is None
        if prepared.tokens > share * WHOLE.limit:
            return messages
    raise AssertionError("it does not grow that long")


def test_what_is_read_anew_anyway_is_compacted_at_once(memory: Memory) -> None:
    context = Context(memory, budget=WHOLE)
    messages = grown(context, 0.55, tools=TOOLS)
    # Something is appended, an instruction too: nothing has changed.
    messages.append({"role": "system", "content": "Be brief."})
    assert context.prepare(messages, session="s", tools=TOOLS).exchange is None
    # Other tools come first in the prompt.
    more = [*TOOLS, {"type": "function", "function": {"name": "read"}}]
    prepared = context.prepare(messages, session="s", tools=more)
    assert prepared.exchange and prepared.exchange.cached == 0
    assert prepared.tokens < 0.45 * WHOLE.limit
    assert context.prepare(messages, session="s", tools=more).exchange is None


@pytest.mark.parametrize("change", ["instructions", "an earlier message"])
def test_other_changes_of_the_client_are_seen_too(memory: Memory, change: str) -> None:
    context = Context(memory, budget=WHOLE)
    messages = grown(context, 0.55)
    place = 0 if change == "instructions" else 3
    messages[place] = messages[place] | {"content": "something else"}
    assert context.prepare(messages, session="s").exchange


def test_agents_that_share_a_name_take_turns(memory: Memory) -> None:
    context = Context(memory, budget=WHOLE)
    messages = grown(context, 0.55, tools=TOOLS)
    other = [{"role": "user", "content": "a small task"}]
    for turn in range(3):
        assert context.prepare(other, session="s").exchange is None
        assert context.prepare(messages, session="s", tools=TOOLS).exchange is None
        asked = {"role": "assistant", "content": "", "tool_calls": [call(f"t{turn}", "bash")]}
        messages += [asked, {"role": "tool", "tool_call_id": f"t{turn}", "content": "ok"}]


def test_a_trimmable_cache_waits_for_the_trigger(memory: Memory) -> None:
    context = Context(memory, budget=SMALL)
    messages = grown(context, 0.55)
    assert context.prepare(messages, session="s", tools=TOOLS).exchange is None
