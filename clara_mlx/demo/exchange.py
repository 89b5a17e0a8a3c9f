"""What `clara-mlx demo --gateway` does: a scripted agent works through the real gateway.

The commands and their outputs are real, the gateway is `clara-mlx serve` in a process of its own;
only the reasoner follows a script, as it would be too large to come with a package.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx

from clara_mlx.context.counting import Estimate
from clara_mlx.demo.project import Command, make_project, run
from clara_mlx.demo.scripted import ScriptedReasoner
from clara_mlx.errors import ClaraError

#: Tokens that the reasoner of the story can see.
WINDOW = 8192
_RESERVE = 512

# What an agent reads while it works: the tests, the code, and much else.
_MODULES = ("bisect", "heapq", "graphlib", "shlex", "textwrap", "string", "queue", "sched")
_COMMANDS = (
    Command("unittest", "python -m unittest -v", ("python", "-m", "unittest", "-v")),
    Command("cat", "cat src/grain_iron.py", ("cat", "src/grain_iron.py")),
    Command("cat", "cat tests/test_router.py", ("cat", "tests/test_router.py")),
    *(
        Command("pydoc", f"python -m pydoc {name}", ("python", "-m", "pydoc", name))
        for name in _MODULES
    ),
)

_TASK = "One test fails. Find out why, read what you need, and tell me the failing assertion."
_QUESTION = "Which assertion failed in test_tavern_primal?"
_FACT = "AssertionError"

_TOOL = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    },
}

# Seconds within which the gateway starts, and answers.
_PATIENCE = 120.0


@dataclass(frozen=True)
class Turn:
    """A request of the agent."""

    what: str  # the command that its answer asked for, or how it ended
    sent: int  # tokens of the whole conversation, as the agent sends it
    read: int  # tokens that the reasoner was sent, also for calls of the memory's tools


@dataclass
class Exchanged:
    """What happened, for JSON and for people. Tokens are estimates, of both sides by one rule."""

    window: int = WINDOW
    turns: list[Turn] = field(default_factory=list)
    overflow: int = 0  # the first request that the window would not take; 0: none
    wanted: str = _QUESTION
    tool: str = ""  # the memory's tool that the reasoner called
    fact: str = ""  # what it answered in the end


def work(folder: Path, step: Callable[[str], None]) -> Exchanged:
    """Let a scripted agent work through the gateway.

    Args:
        folder: An empty folder, in which project and memory are made.
        step: Called with what comes next.

    Raises:
        ClaraError: A part of it can't be done here; the message says which.
    """
    make_project(folder / "project")
    exchanged = Exchanged()
    counter = Estimate()
    reasoner = ScriptedReasoner([command.typed for command in _COMMANDS], _QUESTION, _FACT)
    messages: list[dict[str, Any]] = [{"role": "user", "content": _TASK}]
    step("starting the gateway")
    with (
        reasoner.serving(),
        _gateway(folder, reasoner.url) as url,
        httpx.Client(base_url=url, timeout=_PATIENCE) as client,
    ):
        for number in range(len(_COMMANDS) + 1):
            sent, before = counter.prompt(messages, [_TOOL]), len(reasoner.read)
            body = {"model": "reasoner", "messages": messages, "tools": [_TOOL]}
            response = client.post("/chat/completions", json=body)
            if response.status_code != httpx.codes.OK:
                raise ClaraError(f"the gateway answered {response.status_code}: {response.text}")
            message = response.json()["choices"][0]["message"]
            messages.append(message)
            if sent > WINDOW - _RESERVE and not exchanged.overflow:
                exchanged.overflow = number + 1
            calls = message.get("tool_calls") or []
            what = _COMMANDS[number].typed if calls else "the last answer"
            exchanged.turns.append(Turn(what, sent, sum(reasoner.read[before:])))
            for call in calls:
                step(f"$ {what}")
                output = run(_COMMANDS[number], folder / "project").decode("utf-8", "replace")
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})
    exchanged.tool = reasoner.asked
    exchanged.fact = str(messages[-1].get("content"))
    return exchanged


@contextmanager
def _gateway(folder: Path, reasoner: str) -> Iterator[str]:
    """The gateway in a process of its own; gives the base URL of its API."""
    options = {
        "--endpoint": reasoner,
        "--db": folder / "memory.db",
        "--port": 0,
        "--window": WINDOW,
        "--reserve": _RESERVE,
    }
    words = [str(word) for option in options.items() for word in option]
    process = subprocess.Popen(
        [sys.executable, "-m", "clara_mlx.cli", "serve", *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = []
        assert process.stderr
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"serves at (http\S+)", line):
                yield found[1]
                return
        raise ClaraError(f"the gateway did not start: {''.join(said).strip()}")
    finally:
        process.terminate()
        process.communicate()
