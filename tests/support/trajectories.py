"""Conversations of agents, made from small numbers: what a harness would send, step by step."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

from clara_mlx.context import Budget, Context, Prepared

#: Of which a trajectory of some twenty steps takes more.
SMALL = Budget(window=12_000, reserve=500, keep=2, trigger=0.7, target=0.4)

Message = dict[str, Any]

#: A long output, in which few lines are about a flush.
LINES = [f"{i}: the {'flush' if i % 50 == 7 else 'other'} of step {i}" for i in range(1, 501)]

_WORDS = ("socket", "ledger", "flush", "retry", "parser", "quota", "kernel", "shard", "mirror")


def report(seed: int, lines: int) -> str:
    """A failing test run with exact names, and as many other lines as asked for."""
    rng = random.Random(seed)
    test = f"tests/test_{rng.choice(_WORDS)}_{seed}.py::test_{rng.choice(_WORDS)}"
    body = [
        f"    {rng.choice(_WORDS)}.{rng.choice(_WORDS)}({rng.random()!r})" for _ in range(lines)
    ]
    return "\n".join(
        [
            "=" * 20 + " test session starts " + "=" * 20,
            f"collected {rng.randrange(2, 99)} items",
            *body,
            f"E   ValueError: {rng.choice(_WORDS)} {seed} is out of range",
            f"src/{rng.choice(_WORDS)}.py:{rng.randrange(1, 999)}: ValueError",
            f"FAILED {test} - ValueError: out of range",
            f"==== 1 failed, {rng.randrange(1, 90)} passed in {rng.random():.2f}s ====",
        ]
    )


def call(id: str, name: str, **arguments: Any) -> Message:
    return {
        "id": id,
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments)},
    }


def step(number: int, outputs: list[str], said: str = "") -> list[Message]:
    """An assistant message that calls a tool for each output, and the outputs."""
    calls = [
        call(f"call-{number}-{i}", "bash", command=f"pytest -x -k case_{number}_{i}")
        for i in range(len(outputs))
    ]
    messages: list[Message] = [{"role": "assistant", "content": said or f"Step {number}."}]
    if calls:
        messages[0]["tool_calls"] = calls
    for one, output in zip(calls, outputs, strict=True):
        messages.append({"role": "tool", "tool_call_id": one["id"], "content": output})
    return messages


#: The same, with blocks in place only.
IN_PLACE = replace(SMALL, fold=False)


def start(task: str = "Make the failing tests pass.") -> list[Message]:
    return [
        {"role": "system", "content": "You are a careful engineer.\nNever push to main."},
        {"role": "user", "content": task},
    ]


def trajectory(steps: int, lines: int = 60, seed: int = 0) -> list[list[Message]]:
    """The messages that each step adds; the first one adds the instructions and the task."""
    return [start(), *(step(n, [report(seed + n, lines)]) for n in range(steps))]


def requests(context: Context, steps: list[list[Message]], **kwargs: Any) -> list[Prepared]:
    """The result of every request of a trajectory."""
    messages: list[Message] = []
    results = []
    for added in steps:
        messages += added
        results.append(context.prepare(messages, **kwargs))
    return results
