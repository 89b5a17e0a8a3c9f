"""A recorded agent at work through a gateway: its reasoner says what was recorded, and keeps a log.

The reasoner counts tokens and keeps the prefix of a prompt as a server does, so that its log is a
second, independent account of what was sent. When it sees a handle, it now and then asks for the
text behind it, which the agent does not see.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from gateway import Reply, says
from starlette.responses import Response

from clara_mlx.evaluate.sets import read_captured_set

# Characters of a token.
_PER_TOKEN = 4

_HANDLE = re.compile(r"\[clara (m-[0-9a-f]{10,64})")


@dataclass(frozen=True)
class Logged:
    """One line of the reasoner's log."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    asks: bool  # whether it asked the memory


class LoggingReasoner:
    """Answers with recorded messages.

    Args:
        ask_every: It asks the memory before every so many answers.
        states_cached: Whether it says how many tokens it had cached.
        whole: Whether it keeps nothing of a prompt that changes before its end.
    """

    def __init__(
        self, ask_every: int = 3, *, states_cached: bool = True, whole: bool = False
    ) -> None:
        self.log: list[Logged] = []
        self.next: dict[str, Any] = {}
        self._ask_every = ask_every
        self._states_cached = states_cached
        self._whole = whole
        self._prompt = ""

    @property
    def replies(self) -> Reply:
        """What an `Upstream` answers with."""

        async def reply(body: dict[str, Any]) -> Response:
            return await self._answer(body)(body)

        return reply

    def _answer(self, body: dict[str, Any]) -> Reply:
        prompt = json.dumps([body.get("tools"), body["messages"]])
        common = next(
            (i for i, (a, b) in enumerate(zip(self._prompt, prompt, strict=False)) if a != b),
            min(len(self._prompt), len(prompt)),
        )
        if self._whole and common < len(self._prompt) - 2:
            common = 0
        handles = _HANDLE.findall(str(body["messages"]))
        last = body["messages"][-1]
        asks = bool(handles) and last["role"] == "tool" and "lines 1-" not in str(last["content"])
        asks = asks and len(self.log) % self._ask_every == 0 and bool(body.get("tools"))
        said = {} if asks else self.next
        written = 30 if asks else len(json.dumps(said)) // _PER_TOKEN
        line = Logged(len(prompt) // _PER_TOKEN, common // _PER_TOKEN, written, asks)
        self.log.append(line)
        self._prompt = prompt
        usage: dict[str, Any] = {
            "prompt_tokens": line.prompt_tokens,
            "completion_tokens": line.completion_tokens,
        }
        if self._states_cached:
            usage["prompt_tokens_details"] = {"cached_tokens": line.cached_tokens}
        if asks:
            return says("", ("expand", {"handle": handles[-1]}), usage=usage)
        calls = [(c["function"]["name"], c["function"]["arguments"]) for c in _calls(said)]
        return says(said.get("content") or "", *calls, usage=usage)


def replay(
    messages: Sequence[dict[str, Any]],
    reasoner: LoggingReasoner,
    send: Callable[[list[dict[str, Any]]], Any],
) -> int:
    """Send each request that a recorded agent sent; returns their number."""
    turns = [i for i, one in enumerate(messages) if one["role"] == "assistant" and i]
    for turn in turns:
        reasoner.next = dict(messages[turn])
        send(list(messages[:turn]))
    return len(turns)


def tools_of(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools that a recorded agent used, as it would send them."""
    names = sorted({c["function"]["name"] for one in messages for c in _calls(one)})
    parameters = {"type": "object"}
    return [
        {"type": "function", "function": {"name": name, "parameters": parameters}} for name in names
    ]


def metrics(http: httpx2.Client) -> dict[str, float]:
    """The gateway's totals by name and labels, such as ``clara_prompt_tokens_total{what="in"}``."""
    lines = http.get("/metrics").text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    return message.get("tool_calls") or []


def captured_run(steps: int) -> list[dict[str, Any]]:
    """A run whose outputs are those of real commands, captured once; two to a step."""
    outputs = [(getattr(one, "command", ""), one.text) for one in read_captured_set().outputs]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You fix tests.\nWorking directory: /work/inventory\n"},
        {"role": "user", "content": "Find out what is wrong, and mend it."},
    ]
    for step in range(steps):
        command, text = outputs[2 * step]
        function = {"name": "bash", "arguments": json.dumps({"command": command})}
        id = f"call-{step}"
        call = {"id": id, "type": "function", "function": function}
        content = f"{text}\n{outputs[2 * step + 1][1]}"
        messages += [
            {"role": "assistant", "content": f"Step {step}: I run it.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": id, "content": content},
        ]
    return [*messages, {"role": "assistant", "content": "Done."}]
