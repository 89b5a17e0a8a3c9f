"""Agents' trajectories through several ways to make them fit: tokens, prefill, facts, time.

    python bench/replay.py [--compymac CHECKOUT] [--model FOLDER] [--reasoner FOLDER]

A trajectory is generated: a task, then steps that run a command and get its output, or write a
file. At every second step the agent needs a fact that an output of an earlier step gave. It is
*present* if the line of the output with the fact (the lines, if it follows from several) stands in
what was sent, and *recovered* if it does after one memory call, which is really made: the call and
its result join the history, and the history is sent once more. The call expands the handle that is
shown for the command that printed the fact; only our own way has a second tool to try where none
is shown, `ask_memory` with the probe's question. White space aside, lines must be exact, and only
facts are asked whose lines occur once in the whole trajectory.

Tokens are counted by the reasoner's tokenizer and chat template. What must be prefilled is what
follows the longest common prefix with the request before. For one more, shorter trajectory a real
mlx_lm.server is asked for one token after every request, and says what it had cached.

Results go to bench/results/replay.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx2
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm import tokenizer_utils
from replay_methods import BASH, CompyMac, Everything, Masking, Ours, Truncation

from clara_mlx import machine
from clara_mlx.context import Budget, ChatTemplate
from clara_mlx.context.messages import Message, content_text
from clara_mlx.outputs.generate import TOOLS, generate
from clara_mlx.outputs.generate.messages import log_lines
from clara_mlx.outputs.names import Names

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import tiny_models
import tiny_reasoner

GOLDEN = ROOT / "tests/golden/tiny-base"
RESULTS = ROOT / "bench/results"
# Tools that one command runs, one after the other: each prints 600 to 3,000 characters.
PARTS = (1, 1, 2, 2, 3, 4)
# Lines of a log that some outputs stand amid, of about 70 characters each.
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
# An agent asks for what it saw at least so many steps ago.
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
    """An agent's work of so many steps, the same for the same seed; some outputs are long logs."""
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
    """A text with single blanks for all white space."""
    return " ".join(text.split())


class Tokens:
    """Token ids of rendered prompts, piece by piece between special tokens, each piece once."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = tokenizer_utils.load(folder)
        self._end = self._tokenizer.eos_token
        self._pieces: dict[str, list[int]] = {}

    def ids(self, messages: list[Message], tools: list[Any]) -> list[list[int]]:
        """The prompt's ids in pieces; the end-of-turn token begins each but the first."""
        served = json.loads(json.dumps(messages))
        for message in served:
            for call in message.get("tool_calls") or ():
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        text = self._tokenizer.apply_chat_template(
            served, tools=tools, add_generation_prompt=True, tokenize=False
        )
        first, *others = text.split(self._end)
        return [self._piece(piece) for piece in (first, *(self._end + one for one in others))]

    def _piece(self, text: str) -> list[int]:
        if text not in self._pieces:
            self._pieces[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._pieces[text]

    def count(self, messages: list[Message], tools: list[Any]) -> int:
        return sum(map(len, self.ids(messages, tools)))


def common(a: list[list[int]], b: list[list[int]]) -> int:
    """Tokens of the longest common prefix."""
    total = 0
    for one, other in zip(a, b, strict=False):
        if one == other:
            total += len(one)
            continue
        same = (i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y)
        return total + next(same, min(len(one), len(other)))
    return total


@dataclass
class Figures:
    """What one method did, request by request and need by need."""

    sent: list[int] = field(default_factory=list)
    reused: list[int] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    call_seconds: list[float] = field(default_factory=list)
    needs: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)


Server = Callable[[list[Message], list[Any]], int]


def replay(
    work: Trajectory,
    method: Everything,
    tokens: Tokens,
    counter: ChatTemplate,
    figures: Figures,
    server: Server | None = None,
) -> None:
    """One trajectory through one method."""
    history = list(work.start)
    before: list[list[int]] = []

    def send() -> list[Message]:
        nonlocal before
        begun = time.perf_counter()
        sent = method.prepare(history)
        figures.seconds.append(time.perf_counter() - begun)
        ids = tokens.ids(sent, method.tools)
        total = sum(map(len, ids))
        if len(figures.sent) % 25 == 0:
            assert total == counter.prompt(sent, method.tools)
        figures.sent.append(total)
        figures.reused.append(min(common(before, ids), total - 1))
        if server:
            figures.cached.append(server(sent, method.tools))
        before = ids
        return sent

    def shows(sent: list[Message], line: str) -> bool:
        return line in flat(" ".join(content_text(message) for message in sent))

    for number, step in enumerate(work.steps):
        sent = send()
        if need := work.needs.get(number):
            if isinstance(method, Ours):
                _, _, asked = method.ask(need.command, need.question)
                figures.needs["by ask_memory alone"] += need.line in flat(asked)
            how = "present" if shows(sent, need.line) else "lost"
            if how == "lost":
                begun = time.perf_counter()
                called = method.recover(need.command, need.question, sent)
                if called:
                    figures.call_seconds.append(time.perf_counter() - begun)
                    name, arguments, result = called
                    history += tool_call(f"m{number}", name, arguments, "", result)
                    figures.needs[f"calls of {name}"] += 1
                    if shows(send(), need.line):
                        how = f"recovered by {name}"
                    else:
                        figures.missed.append(f"{name}: {need.command}: {need.question}")
            figures.needs[how] += 1
        history += step


def summary(figures: Figures, works: list[Trajectory]) -> dict[str, Any]:
    """The figures of a method over all trajectories."""
    needs = sum(len(work.needs) for work in works)
    recovered = sum(n for how, n in figures.needs.items() if how.startswith("recovered"))
    cuts = quantiles(figures.seconds, n=20)
    return {
        "requests": len(figures.sent),
        "tokens_sent": sum(figures.sent),
        "tokens_peak": max(figures.sent),
        "tokens_prefilled": sum(figures.sent) - sum(figures.reused),
        "needs": needs,
        "present": figures.needs["present"] / needs,
        "present_or_recovered": (figures.needs["present"] + recovered) / needs,
        "how": dict(sorted(figures.needs.items())),
        "ms_per_request_p50": 1e3 * median(figures.seconds),
        "ms_per_request_p95": 1e3 * cuts[-1],
        "ms_per_memory_call_p50": 1e3 * median(figures.call_seconds) if figures.call_seconds else None,
        "missed": figures.missed[:20],
    }


def compared(results: dict[str, dict[str, Any]]) -> None:
    """Say of each method how much it saves beside everything."""
    whole = results["everything"]
    for result in results.values():
        for what in ("sent", "prefilled"):
            share = 1 - result[f"tokens_{what}"] / whole[f"tokens_{what}"]
            result[f"tokens_{what}_saved"] = share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compymac", type=Path, default=os.environ.get("CLARA_MLX_COMPYMAC"))
    parser.add_argument("--model", type=Path, help="a CLaRa folder, for one more way: ours with it")
    parser.add_argument("--reasoner", type=Path, help="tokenizer and template; else a tiny one")
    parser.add_argument("--window", type=int, default=65_536)
    parser.add_argument("--boundary", type=int, default=3_000)
    parser.add_argument("--trajectories", type=int, default=6, help="of 60 to 150 steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-server", action="store_true", help="leave mlx_lm.server out")
    parser.add_argument("--output", type=Path, default=RESULTS / "replay.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(options, Path(folder))
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every method over every trajectory, and one with a server."""
    reasoner = options.reasoner or tiny(folder / "reasoner")
    tokens, counter = Tokens(reasoner), ChatTemplate(reasoner)
    steps = [60 + round(90 * i / max(1, options.trajectories - 1)) for i in range(options.trajectories)]
    works = [trajectory(1000 * options.seed + i, n) for i, n in enumerate(steps)]
    texts = [content_text(m) for work in works for step in work.steps for m in step]
    characters = sum(map(len, texts)) / sum(map(counter.text, texts))
    budget = Budget(options.window, options.window // 8, boundary=options.boundary)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "load": os.getloadavg(),
        "settings": {k: v if isinstance(v, int) else str(v) for k, v in vars(options).items()},
        "steps": steps,
        "characters_per_token": characters,
        "budget": vars(budget),
    }
    made = methods(options, budget, tokens, counter, characters)
    results["methods"] = over(made, works, tokens, counter, folder)
    if not options.no_server:
        short = [trajectory(1000 * options.seed - 1, 60, parts=(1,))]
        budget = Budget(16_384, 2_048, boundary=1_000)
        made = methods(options, budget, tokens, counter, characters)
        results["server"] = {"steps": 60, "budget": vars(budget)}
        results["server"]["methods"] = over(made, short, tokens, counter, folder, served=reasoner)
    return results


Make = Callable[[Path], Everything]


def methods(
    options: argparse.Namespace,
    budget: Budget,
    tokens: Tokens,
    counter: ChatTemplate,
    characters: float,
) -> dict[str, Make]:
    """What makes each method, given the path of a memory file."""
    made: dict[str, Make] = {
        "everything": lambda path: Everything(),
        "truncation": lambda path: Truncation(budget, tokens.count),
        "masking, newest 10 kept": partial(masking, budget, tokens, 10, 1),
        "masking in fives, newest 5 to 9 kept": partial(masking, budget, tokens, 5, 5),
    }
    if options.compymac:
        made["CompyMac"] = lambda path: CompyMac(Path(options.compymac), budget, characters)
    whole = Budget(budget.window, budget.reserve)
    made["ours, new outputs whole"] = lambda path: Ours(whole, counter, path)
    made["ours"] = lambda path: Ours(budget, counter, path)
    if options.model:
        import clara_mlx

        clara = clara_mlx.load(options.model)
        made["ours with a model"] = lambda path: Ours(budget, counter, path, clara)
    return made


def masking(budget: Budget, tokens: Tokens, keep: int, batch: int, path: Path) -> Masking:
    return Masking(budget, tokens.count, path, keep, batch)


def over(
    made: dict[str, Make],
    works: list[Trajectory],
    tokens: Tokens,
    counter: ChatTemplate,
    folder: Path,
    served: Path | None = None,
) -> dict[str, Any]:
    """Each method over all trajectories, with a server of its own if ``served`` names a model."""
    results: dict[str, Any] = {}
    for name, make in made.items():
        figures = Figures()
        for work in works:
            method = make(Path(tempfile.mkdtemp(dir=folder)) / "memory.db")
            try:
                if served:
                    with tiny_reasoner.served(served, "--decode-concurrency", "1") as url:
                        replay(work, method, tokens, counter, figures, partial(cached, url))
                else:
                    replay(work, method, tokens, counter, figures)
            finally:
                method.close()
        results[name] = summary(figures, works)
        if served:
            results[name] |= {
                "tokens_prefilled_measured": sum(figures.sent) - sum(figures.cached),
                "requests_as_computed": sum(
                    map(int.__eq__, figures.reused, figures.cached)
                ) / len(figures.sent),
                "largest_difference": max(
                    abs(a - b) for a, b in zip(figures.reused, figures.cached, strict=True)
                ),
            }
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
    compared(results)
    return results


def cached(url: str, messages: list[Message], tools: list[Any]) -> int:
    """Tokens of a prompt that the server had; it answers with one."""
    body = {"messages": messages, "tools": tools, "max_tokens": 1, "model": "default_model"}
    answer = httpx2.post(f"{url}/chat/completions", json=body, timeout=600, trust_env=False)
    answer.raise_for_status()
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def tiny(path: Path) -> Path:
    """A qwen3_moe of random words that is quick on a CPU; its template says tools in full."""
    heads = {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    config = tiny_reasoner.CONFIG | heads | {"hidden_size": 32, "moe_intermediate_size": 32}
    model = tiny_models.made(config, path)
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    shutil.copy(GOLDEN / "tokenizer.json", path)
    template = tiny_reasoner.TEMPLATE.replace("{{ tool.function.name }}", "{{ tool | tojson }}")
    words = json.loads((GOLDEN / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(words | {"chat_template": template}))
    return path


if __name__ == "__main__":
    main()
