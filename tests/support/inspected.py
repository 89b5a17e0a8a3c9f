"""A memory to look at: real outputs, hostile ones, a compacted conversation, its ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import commonprefix
from pathlib import Path
from typing import Any

import real_outputs
from gateway import Gateway, Reply, running, says, wait_until
from hostile_texts import HOSTILE
from starlette.responses import Response
from trajectories import call

from clara_mlx.context import Budget, Context
from clara_mlx.evaluate.sets import read_captured_set
from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.app import create_inspector, inspector_server
from clara_mlx.store.ledger import Round

#: The session of the conversation that was compacted.
SESSION = "3f2b7c1e-8d4a-4b6e-9d0f-5a1c2e3d4f60"

#: A text that tries everything that a page could fall for.
HOSTILE_TEXT = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\n"
    "</span></div></main><h1>not ours</h1> {{ 7 * 7 }} {% raw %}\n"
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \u202egnp.exe\u202c \u2066x\u2069 \x00\x01\x02\x7f\x9b\n"
    "'\"><a href='javascript:window.hacked = 3'>x</a> &lt;b&gt; \ufeff\u200b\U000e0041\n"
)

#: A name that tries the same.
HOSTILE_NAME = "a\u202eb/c?d=<i>&e='\"#%00"

#: Characters of a text of one line that is longer than any page.
LONG_LINE = 5_000_000

#: The token of the inspectors.
TOKEN = "the-token-of-the-inspector"


def fill(memory: Memory) -> None:
    """Remember the outputs, and have a conversation of them compacted."""
    for name, text in _outputs().items():
        memory.remember(text, source=name.lower(), session="outputs", metadata={"project": "/p"})
    memory.remember(HOSTILE_TEXT, source="<b>x</b>", session=HOSTILE_NAME, metadata={"<i>": "\0"})
    for name, text in HOSTILE.items():
        memory.remember(text, source="hostile", session=HOSTILE_NAME, metadata={"title": name})
    memory.remember("x" * LONG_LINE + "\nthe end", source="long", handle="m-10ff")
    memory.remember(b"\xff\xfe\x00 no text", source="bytes")
    context = Context(memory, None, Budget(window=4_000, reserve=500))
    context.prepare(conversation(), session=SESSION)


def conversation(steps: int = 14, first: int = 0) -> list[dict[str, Any]]:
    """A conversation of real outputs of commands, with three of them a step.

    Args:
        steps: The number of steps.
        first: The number of the first output.
    """
    captured = read_captured_set().outputs
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are an agent that programs."},
        {"role": "user", "content": f"Fix the inventory: its tests fail. (Work {first + 1}.)"},
    ]
    for number in range(steps):
        some = [captured[(first + 3 * number + more) % len(captured)] for more in range(3)]
        calls = [
            call(f"call-{number}-{place}", "bash", command=one.command)
            for place, one in enumerate(some)
        ]
        said = {"role": "assistant", "content": f"Step {number + 1}: I look further."}
        messages.append(said | {"tool_calls": calls})
        messages += [
            {"role": "tool", "tool_call_id": made["id"], "content": one.text}
            for made, one in zip(calls, some, strict=True)
        ]
    return messages


def caching(text: str) -> Reply:
    """A reasoner that says how much of each prompt it had, as servers with a cache do.

    A token is four characters of the request's messages here.
    """
    known = [""]

    async def reply(body: dict[str, Any]) -> Response:
        prompt = json.dumps(body["messages"])
        same = len(commonprefix((known[0], prompt))) // 4  # noqa: RUF071  # of texts, not of paths
        known[0] = prompt
        tokens = len(prompt) // 4
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": 12,
            "total_tokens": tokens + 12,
            "prompt_tokens_details": {"cached_tokens": same},
        }
        return await says(text, usage=usage)(body)

    return reply


def work(gate: Gateway, messages: list[dict[str, Any]], session: str, **headers: str) -> int:
    """Send a conversation as an agent does: all of it again at each step; the number of requests.

    Waits until the ledger has them.
    """
    before = sum(one.requests for one in gate.memory.ledger.sums())
    ends = [n for n, one in enumerate(messages) if one["role"] == "assistant"][1:]
    for end in [*ends, len(messages)]:
        gate.chat(messages[:end], extra_headers={"x-clara-session": session, **headers})
    requests = len(ends) + 1
    wait_until(lambda: sum(s.requests for s in gate.memory.ledger.sums()) == before + requests)
    return requests


def count(memory: Memory, now: float | None = None) -> list[Round]:
    """Write rounds of two days into the ledger, as a gateway would; returns them."""
    now = time.time() if now is None else now
    outputs = memory.list({"session": SESSION, "source": "bash"})
    longest = sorted(outputs, key=lambda one: -one.length)
    compacted = tuple(one.handle for one in longest[:3])
    usual = {"project": "/home/me/inventory", "agent": "claude-cli", "model": "qwen3"}
    rounds = [
        Round(now - 90_000, "yesterday", tokens_in=4_000, tokens_sent=4_000, **usual),  # type: ignore[arg-type]
        Round(
            now - 300,
            SESSION,
            tokens_in=9_000,
            tokens_sent=9_000,
            cached_reported=0,
            completion_tokens=120,
            cache="first",
            why="nothing of it was sent before",
            **usual,  # type: ignore[arg-type]
        ),
        Round(
            now - 200,
            SESSION,
            tokens_in=12_000,
            tokens_sent=7_000,
            cached_expected=2_000,
            cached_reported=2_100,
            completion_tokens=80,
            cache="partial",
            why="the compaction changed message 3",
            reason="old tool outputs as blocks",
            before=12_000,
            after=7_000,
            lost=6_900,
            compacted=compacted,
            **usual,  # type: ignore[arg-type]
        ),
        Round(
            now - 100,
            SESSION,
            tokens_in=13_000,
            tokens_sent=8_000,
            cached_reported=7_000,
            completion_tokens=60,
            cache="hit",
            why="only what is new was read",
            memory_calls=1,
            asked=((compacted[0], "expand"),) if compacted else (),
            **usual,  # type: ignore[arg-type]
        ),
        Round(now - 50, SESSION, error="the reasoner <i>did not</i> answer", **usual),  # type: ignore[arg-type]
    ]
    memory.ledger.write(rounds)
    return rounds


def inspected(path: Path) -> Memory:
    """Such a memory, made anew and open."""
    memory = Memory.open(path)
    fill(memory)
    count(memory)
    return memory


class Site:
    """A running inspector with the memory that it shows."""

    def __init__(self, url: str, memory: Memory) -> None:
        self.url = url
        self.memory = memory
        self.entrance = f"{url}/?token={TOKEN}"


@contextmanager
def site_of(memory: Memory, *, edit: bool) -> Iterator[Site]:
    """An inspector of a memory."""
    with running(inspector_server(create_inspector(memory, TOKEN, edit=edit))) as url:
        yield Site(url, memory)


def _outputs() -> dict[str, str]:
    return {
        name: text
        for name, text in vars(real_outputs).items()
        if name.isupper() and isinstance(text, str)
    }
