"""Generated trajectories of agents, with the facts that they need again later."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import islice
from typing import Any

from clara_mlx.context.messages import Message, content_text
from clara_mlx.evaluate.corpus import TOOLS, generate
from clara_mlx.evaluate.corpus.messages import log_lines
from clara_mlx.evaluate.corpus.names import Names

# The number of tools that one command runs, one after the other; drawn from these. Each tool
# prints 600 to 3,000 characters.
PARTS = (1, 1, 2, 2, 3, 4)
# The lines of a log around some outputs, least and most; a line has about 70 characters.
LOG = (100, 600)
COMMANDS = {
    "pytest": "pytest -x",
    "unittest": "python -m unittest",
    "traceback": "python main.py",
    "ruff": "ruff check",
    "mypy": "mypy .",
    "cargo": "cargo test",
    "go": "go test ./...",
    "gcc": "gcc -Wall -c *.c",
    "npm": "npm test",
    "http": "curl -i localhost:8000",
    "build": "make",
    "ripgrep": "rg TODO",
    "ls": "ls -l",
    "tree": "tree",
    "git-status": "git status",
    "git-log": "git log -5",
    "git-diff": "git diff",
    "toml": "cat conf.toml",
    "yaml": "cat conf.yaml",
    "json": "cat conf.json",
    "env": "cat .env",
}
SYSTEM = (
    "You are a careful engineer who works in a repository by running commands. Read before you "
    "write, change as little as you can, and run the checks after each change. Never push."
)
# An agent asks for what it saw at least this many steps ago.
LAG = 3


@dataclass(frozen=True)
class Need:
    """A fact that the agent needs: a ``line`` of what ``command`` printed at step ``seen``."""

    seen: int
    command: str
    question: str
    line: str


@dataclass(frozen=True)
class Trajectory:
    """The task, the messages that each step adds, and the needs by step."""

    start: list[Message]
    steps: list[list[Message]]
    needs: dict[int, Need]


def trajectory(
    seed: int, steps: int, logs: float = 0.0, parts: tuple[int, ...] = PARTS
) -> Trajectory:
    """Generate an agent's work, the same for the same seed.

    Args:
        seed: The seed.
        steps: The number of steps.
        logs: The share of outputs that are in the middle of a log.
        parts: The numbers of tools that one command may run.
    """
    rng = random.Random(seed)
    names = Names(rng, "test")
    task = f"Make every check of {names.kebab()} pass, and tell me what was wrong with it."
    start = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
    made, facts = [], []
    for number in range(steps):
        path = f"{names.word()}/{names.kebab()}-{number}"
        said = f"Next I look at {path}, because of {names.word()} and {names.word()}."
        if number % 4 == 3:
            text = generate(rng, rng.choice(("toml", "yaml", "json")), "test", "long").text
            command, printed = f"cat > {path} <<'END'\n{text}\nEND", ""
        else:
            tools = rng.sample(TOOLS, rng.choice(parts))
            command = f"cd {path}; " + "; ".join(COMMANDS[tool] for tool in tools)
            outputs = [generate(rng, tool, "test", "long") for tool in tools]
            texts = [output.text.rstrip("\n") for output in outputs]
            if rng.random() < logs:
                lines = islice(log_lines(names), rng.randint(*LOG))
                texts[-1:-1] = ["\n".join(lines)]
            printed = "\n".join(texts)
            for output in outputs:
                for probe in output.probes:
                    first = output.text.rfind("\n", 0, probe.start) + 1
                    last = output.text.find("\n", probe.end)
                    line = output.text[first : last if last >= 0 else None]
                    if "\n" not in line:
                        facts.append(Need(number, command, probe.question, flat(line)))
        made.append(tool_call(number, "bash", {"command": command}, said, printed))
    everything = flat(" ".join(content_text(message) for step in made for message in step))
    once = [need for need in facts if everything.count(need.line) == 1]
    needs = {}
    for number in range(LAG + 1, steps, 2):
        if old := [need for need in once if need.seen <= number - LAG]:
            step = rng.choice(sorted({need.seen for need in old}))
            needs[number] = rng.choice([need for need in old if need.seen == step])
    return Trajectory(start, made, needs)


def tool_call(id: object, tool: str, arguments: Any, said: str, result: str) -> list[Message]:
    """An assistant's message with one call, and the result."""
    function = {"name": tool, "arguments": json.dumps(arguments)}
    calls = [{"id": f"call-{id}", "type": "function", "function": function}]
    return [
        {"role": "assistant", "content": said, "tool_calls": calls},
        {"role": "tool", "tool_call_id": f"call-{id}", "content": result},
    ]


def flat(text: str) -> str:
    """A text with a single blank in place of each run of white space."""
    return " ".join(text.split())
