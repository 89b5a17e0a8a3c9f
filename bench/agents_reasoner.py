"""A reasoner that works through a task: it calls the agent's shell, and asks the memory for facts.

Used by agents.py. It measures nothing by itself.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents_task import Step, holds
from scripted_upstream import completion

# The tools of the memory that are called.
_ASK = "ask_memory"
_EXPAND = "expand"

# What stands for a text of the memory.
# m-0123456789ab
_HANDLE = re.compile(r"m-[0-9a-f]{12}")

# Messages at the end of a request that the output of a command is looked for in.
_NEWEST = 4


@dataclass
class Asked:
    """A fact that was asked back.

    Attributes:
        step: The step that it is of.
        in_view: Whether it stood in what was sent, without asking.
        found: Whether it stood in what `ask_memory` answered.
        expanded: Whether it stood in what `expand` then showed of the output, asked for its name;
            None if there was no need, or no handle in view.
    """

    step: Step
    in_view: bool
    found: bool = False
    expanded: bool | None = None


@dataclass
class Reasoner:
    """What it has done so far; called with each request.

    Args:
        steps: The commands to run.
        pause_after: The number of steps after which it says that this part is done.
        shell: Makes the call of the agent's shell from a command: the tool's name, its arguments.
            Without one, a user runs the commands and says so.
        asks_early: Ask for facts in the second half of the steps although there is no pause.

    Attributes:
        done: The number of commands that it has asked for.
        asked: The facts that were asked back.
        bodies: The requests of the work, without those on the side.
        side: The number of requests on the side, such as those for a title.
        shown: The steps whose facts came in the commands' outputs; an agent may cut them before.
    """

    steps: Sequence[Step]
    pause_after: int
    shell: Callable[[str], tuple[str, dict[str, Any]]] | None
    asks_early: bool = False
    done: int = 0
    asked: list[Asked] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    side: int = 0
    shown: set[int] = field(default_factory=set)
    _has_paused: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, connection: socket.socket, body: dict[str, Any]) -> None:
        """Answer a request."""
        with self._lock:
            answer = self.answer(body)
        connection.sendall(answer)

    def answer(self, body: Mapping[str, Any]) -> bytes:
        """What a request is answered, as a whole HTTP response."""
        tools = {tool["function"]["name"] for tool in body.get("tools") or ()}
        tokens = len(json.dumps(body)) // 4
        usage = {"prompt_tokens": tokens, "completion_tokens": 30, "total_tokens": tokens + 30}
        if self.shell is not None and self.shell("")[0] not in tools:
            self.side += 1
            return completion(body, "A task of many steps", **usage)
        self.bodies.append(dict(body))
        called = _called(body)
        if self.shell is None and not called:
            self.done += 1
        if self.done and called not in (_ASK, _EXPAND):
            newest = self.steps[self.done - 1]
            if any(holds(_text(m), newest) for m in body["messages"][-_NEWEST:]):
                self.shown.add(self.done - 1)
        if called == _ASK:
            asked = self.asked[-1]
            asked.found = holds(_text(body["messages"][-1]), asked.step)
            handle = None if asked.found else _handle_of(body, asked.step)
            if handle:
                given = json.dumps({"handle": handle, "find": asked.step.name})
                return completion(body, "", (_EXPAND, given), **usage)
        elif called == _EXPAND:
            self.asked[-1].expanded = holds(_text(body["messages"][-1]), self.asked[-1].step)
        elif _ASK in tools and self._asks_now and (step := self._next_fact()):
            self.asked.append(Asked(step, any(holds(_text(m), step) for m in body["messages"])))
            question = json.dumps({"question": step.question})
            return completion(body, "", (_ASK, question), **usage)
        if self.done == self.pause_after < len(self.steps) and not self._has_paused:
            self._has_paused = True
            return completion(body, "The first part is done.", **usage)
        if self.shell is None:
            return completion(body, "Go on with the next step.", **usage)
        if self.done < len(self.steps):
            tool, arguments = self.shell(self.steps[self.done].command)
            self.done += 1
            said = f"Step {self.done}: {self.steps[self.done - 1].command}"
            return completion(body, said, (tool, json.dumps(arguments)), **usage)
        return completion(body, "All steps are done.", **usage)

    @property
    def _asks_now(self) -> bool:
        return self._has_paused or (self.asks_early and self.done > len(self.steps) // 2)

    def _next_fact(self) -> Step | None:
        """The first fact of the first half of the steps that came and was not asked for yet."""
        asked = {one.step for one in self.asked}
        half = range(len(self.steps) // 2)
        some = (self.steps[i] for i in half if i in self.shown)
        return next((step for step in some if step not in asked), None)


def _called(body: Mapping[str, Any]) -> str:
    """The tool whose result is the newest message; nothing if it is none."""
    messages = body["messages"]
    before = next((m for m in reversed(messages) if m["role"] == "assistant"), {})
    calls = before.get("tool_calls") or ()
    is_result = messages[-1]["role"] == "tool"
    return str(calls[-1]["function"]["name"]) if calls and is_result else ""


def _handle_of(body: Mapping[str, Any], step: Step) -> str | None:
    """The handle in the line of a step's command, or the first that is in view after it."""
    text = "\n".join(_written(message) for message in body["messages"])
    before, command, after = text.partition(step.command)
    line = before.rpartition("\n")[2]
    found = _HANDLE.findall(f"{line}\n{after}") if command else []
    return found[0] if found else None


def _written(message: Mapping[str, Any]) -> str:
    calls = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
    return "\n".join((_text(message), *map(str, calls)))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)
