"""Sends agents' trajectories through several ways to make them fit: tokens, prefill, facts, time.

    python bench/replay.py [--compymac CHECKOUT] [--model FOLDER] [--reasoner FOLDER]

A trajectory is generated: a task, then steps that run a command and get its output, or write a
file. At every second step the agent needs a fact that the output of an earlier step gave. The fact
is *present* if the output's line with it is in what was sent. It is *recovered* if the line is
there after one memory call, which is really made: the call and its result join the history, and
the history is sent once more. Masking expands the handle that is shown for the command that printed
the fact (see `replay_methods.expand_shown`); ours asks `ask_memory` the probe's question, about
that handle, or about everything if none is shown. Except for white space, lines must be exact, and
only facts whose lines occur once in the whole trajectory are asked for.

Tokens are counted by the reasoner's tokenizer and chat template. Whatever follows the longest
common prefix with the request before must be prefilled. For one more, shorter trajectory, a real
mlx_lm.server is asked for one token after every request, and says how much of it was cached.

Results go to bench/results/replay.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from replay_methods import CompyMac, Everything, Masking, Ours, Truncation
from replay_reasoner import Tokens, ask_cached_tokens, common_tokens, make_tiny_reasoner, served
from replay_trajectories import Trajectory, flat, tool_call, trajectory

from clara_mlx import machine
from clara_mlx.context import Budget, ChatTemplate
from clara_mlx.context.messages import Message, content_text

RESULTS = Path(__file__).parent / "results"
# By the name of a set, the share of its outputs that are in the middle of a log.
SETS = {"short outputs": 0.0, "long outputs": 0.3}
# Steps of the trajectory that a real server is asked.
SERVED_STEPS = 60


@dataclass
class Figures:
    """What one method did, request by request and need by need.

    Attributes:
        sent: Tokens of each request.
        reused: Tokens of its longest common prefix with the request before.
        cached: Tokens of it that a real server had cached.
        calls: Tokens prefilled for the requests that memory calls cost.
        seconds: The time to prepare each request.
        call_seconds: The time of each memory call.
        needs: The number of needs by how they were met.
        missed: The needs that a memory call did not recover.
    """

    sent: list[int] = field(default_factory=list)
    reused: list[int] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    calls: int = 0
    seconds: list[float] = field(default_factory=list)
    call_seconds: list[float] = field(default_factory=list)
    needs: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)


# Sends messages with tools to a server, and gives the tokens that it had cached.
Server = Callable[[list[Message], list[Any]], int]


def replay(
    work: Trajectory,
    method: Everything,
    tokens: Tokens,
    counter: ChatTemplate,
    figures: Figures,
    server: Server | None = None,
) -> None:
    """Send one trajectory through one method, and add up what it did in ``figures``."""
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
        figures.reused.append(min(common_tokens(before, ids), total - 1))
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
                    sent = send()
                    figures.calls += figures.sent[-1] - figures.reused[-1]
                    if shows(sent, need.line):
                        how = f"recovered by {name}"
                    else:
                        figures.missed.append(f"{name}: {need.command}: {need.question}")
            figures.needs[how] += 1
        history += step


def summarise(figures: Figures, works: list[Trajectory]) -> dict[str, Any]:
    """The figures of a method over all trajectories."""
    needs = sum(len(work.needs) for work in works)
    recovered = sum(n for how, n in figures.needs.items() if how.startswith("recovered"))
    cuts = quantiles(figures.seconds, n=20)
    return {
        "requests": len(figures.sent),
        "tokens_sent": sum(figures.sent),
        "tokens_peak": max(figures.sent),
        "tokens_prefilled": sum(figures.sent) - sum(figures.reused),
        "tokens_prefilled_for_memory_calls": figures.calls,
        "needs": needs,
        "present": figures.needs["present"] / needs,
        "present_or_recovered": (figures.needs["present"] + recovered) / needs,
        "how": dict(sorted(figures.needs.items())),
        "ms_per_request_p50": 1e3 * median(figures.seconds),
        "ms_per_request_p95": 1e3 * cuts[-1],
        "ms_per_memory_call_p50": 1e3 * median(figures.call_seconds)
        if figures.call_seconds
        else None,
        "missed": figures.missed[:20],
    }


def add_savings(results: dict[str, dict[str, Any]]) -> None:
    """Add to each method's results how much it saves compared with sending everything."""
    whole = results["everything"]
    for result in results.values():
        for what in ("sent", "prefilled"):
            share = 1 - result[f"tokens_{what}"] / whole[f"tokens_{what}"]
            result[f"tokens_{what}_saved"] = share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compymac", type=Path, default=os.environ.get("CLARA_MLX_COMPYMAC"))
    parser.add_argument("--model", type=Path, help="a CLaRa model folder; adds ours with a model")
    parser.add_argument("--reasoner", type=Path, help="a folder; by default a tiny one is made")
    parser.add_argument("--window", type=int, default=32_768)
    parser.add_argument("--boundary", type=int, default=1_000)
    parser.add_argument("--trajectories", type=int, default=4, help="of 60 to 150 steps")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--no-server", action="store_true", help="leave mlx_lm.server out")
    parser.add_argument("--output", type=Path, default=RESULTS / "replay.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(options, Path(folder))
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run every method over every trajectory, and over a short one with a real server."""
    reasoner = options.reasoner or make_tiny_reasoner(folder / "reasoner")
    tokens, counter = Tokens(reasoner), ChatTemplate(reasoner)
    steps = [
        60 + round(90 * i / max(1, options.trajectories - 1)) for i in range(options.trajectories)
    ]
    sets = {
        name: [trajectory(1000 * options.seed + i, n, logs) for i, n in enumerate(steps)]
        for name, logs in SETS.items()
    }
    texts = [
        content_text(message)
        for works in sets.values()
        for work in works
        for step in work.steps
        for message in step
    ]
    characters = sum(map(len, texts)) / sum(map(counter.text, texts))
    budget = Budget(options.window, options.window // 8, boundary=options.boundary)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "load": os.getloadavg(),
        "settings": {k: v for k, v in vars(options).items() if isinstance(v, int)},
        "reasoner": options.reasoner.name if options.reasoner else "tiny",
        "model": options.model.name if options.model else None,
        "compymac": commit_of(options.compymac),
        "steps": steps,
        "characters_per_token": characters,
        "budget": vars(budget),
    }
    makers = methods(options, budget, tokens, counter, characters)
    results["sets"] = {
        name: {"methods": run_methods(makers, works, tokens, counter, folder)}
        for name, works in sets.items()
    }
    if not options.no_server:
        short = [
            trajectory(1000 * options.seed - 1, SERVED_STEPS, SETS["long outputs"], parts=(1,))
        ]
        budget = Budget(16_384, 2_048, boundary=1_000)
        makers = methods(options, budget, tokens, counter, characters)
        results["server"] = {"steps": SERVED_STEPS, "budget": vars(budget)}
        results["server"]["methods"] = run_methods(
            makers, short, tokens, counter, folder, model=reasoner
        )
    return results


def commit_of(checkout: Path | None) -> str:
    """The commit of CompyMac's checkout, or a note that there is none."""
    if not checkout:
        return "left out: no checkout was given"
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# Makes a method, given the path of a memory file.
Make = Callable[[Path], Everything]


def methods(
    options: argparse.Namespace,
    budget: Budget,
    tokens: Tokens,
    counter: ChatTemplate,
    characters: float,
) -> dict[str, Make]:
    """The makers of all methods, by name."""
    makers: dict[str, Make] = {
        "everything": lambda path: Everything(),
        "truncation": lambda path: Truncation(budget, tokens.count),
        "masking, newest 10 kept": partial(make_masking, budget, tokens, 10, 1),
        "masking in fives, newest 5 to 9 kept": partial(make_masking, budget, tokens, 5, 5),
    }
    if options.compymac:
        makers["CompyMac"] = lambda path: CompyMac(Path(options.compymac), budget, characters)
    whole = replace(budget, boundary=None)
    makers["ours, new outputs whole"] = lambda path: Ours(whole, counter, path)
    makers["ours"] = lambda path: Ours(budget, counter, path)
    if options.model:
        import clara_mlx

        clara = clara_mlx.load(options.model)
        makers["ours with a model"] = lambda path: Ours(budget, counter, path, clara)
    return makers


def make_masking(budget: Budget, tokens: Tokens, keep: int, batch: int, path: Path) -> Masking:
    return Masking(budget, tokens.count, path, keep, batch)


def run_methods(
    makers: dict[str, Make],
    works: list[Trajectory],
    tokens: Tokens,
    counter: ChatTemplate,
    folder: Path,
    model: Path | None = None,
) -> dict[str, Any]:
    """Run each method over all trajectories; with a server of its own if ``model`` is a folder."""
    results: dict[str, Any] = {}
    for name, make in makers.items():
        figures = Figures()
        for work in works:
            method = make(Path(tempfile.mkdtemp(dir=folder)) / "memory.db")
            try:
                if model:
                    with served(model, "--decode-concurrency", "1") as url:
                        replay(
                            work, method, tokens, counter, figures, partial(ask_cached_tokens, url)
                        )
                else:
                    replay(work, method, tokens, counter, figures)
            finally:
                method.close()
        results[name] = summarise(figures, works)
        if model:
            results[name] |= {
                "tokens_prefilled_measured": sum(figures.sent) - sum(figures.cached),
                "requests_as_computed": sum(map(int.__eq__, figures.reused, figures.cached))
                / len(figures.sent),
                "largest_difference": max(
                    abs(a - b) for a, b in zip(figures.reused, figures.cached, strict=True)
                ),
            }
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
    add_savings(results)
    return results


if __name__ == "__main__":
    main()
