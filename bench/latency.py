"""Measures what a request costs as its conversation grows: milliseconds of `prepare` and `observe`.

    python bench/latency.py --trajectories FOLDER [--against CHECKOUT] [--db URL]

A conversation is made of recorded runs of agents, one after the other; the format is described in
README.md. It is sent as agents send theirs: whole, once for each answer, parsed anew each time. Of
each size, the last requests are measured whose history has no more tokens, at four characters each.
Nothing is left out before them, so every compaction on the way took place. There is no model. What
is drafted ahead while a reasoner would answer (`Context.draft_blocks`) is counted as "meanwhile";
with ``--no-pause`` it never is, as if the reasoner needed no time. Where others use the machine, it
is the time of the processor that can be compared.

With ``--db`` the same is measured with memories in schemas of a PostgreSQL database, in turns with
files; the schemas are dropped afterwards. What each request asks of its memory is counted.

With ``--against`` the same is measured with the code of another checkout, in turns with this one's,
so that what else the machine does is the same for both. Results go to bench/results/latency.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from clara_mlx import Memory, machine
from clara_mlx.context import Budget, Context
from clara_mlx.context.view import session_of

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
CHARACTERS_PER_TOKEN = 4
# What is measured, in milliseconds. "processor" is what the thread computed for both, and does not
# count what the machine did for others; "meanwhile" is what it did ahead before the next request.
KINDS = ("prepare", "observe", "both", "processor", "meanwhile")
# What is counted: the questions to the memory's database, and its transactions.
COUNTS = ("reads", "writes")
# Requests of a size: the last ones of a conversation whose history has no more tokens than that.
REQUESTS = 60

Message = dict[str, Any]


def main() -> None:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trajectories", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--tokens", type=int, nargs="+", default=[10_000, 100_000, 500_000])
    parser.add_argument("--window", type=int, default=32_768)
    parser.add_argument("--conversations", type=int, default=3, help="each with its order of runs")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="code to compare with")
    parser.add_argument("--db", metavar="URL", help="a PostgreSQL database to compare with files")
    parser.add_argument("--no-pause", action="store_true", help="nothing is drafted ahead")
    parser.add_argument("--output", type=Path, default=RESULTS / "latency.json")
    parser.add_argument("--one", type=int, metavar="SEED", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.trajectories, options.one, options)))
        return
    checkouts = {"here": ROOT, **({"against": options.against} if options.against else {})}
    ways = [(name, checkout, None) for name, checkout in checkouts.items()]
    ways += [("PostgreSQL", ROOT, options.db)] if options.db else []
    taken: dict[str, list[Any]] = {name: [] for name, _, _ in ways}
    for seed in range(options.conversations):
        for name, checkout, db in ways:
            taken[name].append(measure_with(checkout, seed, db, options))
    results = {
        "machine": machine.describe(),
        "load": os.getloadavg(),
        "window": options.window,
        "conversations": options.conversations,
        "pause": not options.no_pause,
        "milliseconds": {
            name: {size: spread(some, size) for size in map(str, options.tokens)}
            for name, some in taken.items()
        },
    }
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))


def measure_with(
    checkout: Path, seed: int, db: str | None, options: argparse.Namespace
) -> dict[str, Any]:
    """What `measure` gives with the code of a checkout, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", str(seed)]
    command += ["--trajectories", str(options.trajectories), "--window", str(options.window)]
    command += ["--tokens", *map(str, options.tokens), *["--no-pause"] * options.no_pause]
    command += ["--db", db] if db else []
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(folder: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Send one conversation; by size, the milliseconds of each of its requests."""
    sizes = sorted(options.tokens)
    taken: dict[int, deque[dict[str, float]]] = {size: deque(maxlen=REQUESTS) for size in sizes}
    budget = Budget(options.window, options.window // 8)
    with a_new_memory(options.db) as memory:
        context = Context(memory, budget=budget)
        asked = count_questions(memory)
        for messages, tokens in requests(conversation(folder, seed)):
            if tokens > sizes[-1]:
                break
            asked.clear()
            begun, processor = time.perf_counter(), time.thread_time()
            context.observe(messages)
            observed = time.perf_counter()
            compacted = bool(context.prepare(messages).compacted)
            ended, computed = time.perf_counter(), time.thread_time() - processor
            counts = {name: asked[name] for name in COUNTS}
            if not options.no_pause and hasattr(context, "draft_blocks"):
                context.draft_blocks(session_of(messages))
            figures = {
                "observe": 1e3 * (observed - begun),
                "prepare": 1e3 * (ended - observed),
                "both": 1e3 * (ended - begun),
                "processor": 1e3 * computed,
                "meanwhile": 1e3 * (time.perf_counter() - ended),
                "compacted": compacted,
                **counts,
            }
            for size in sizes:
                if tokens <= size:
                    taken[size].append(figures)
    return {str(size): list(of_size) for size, of_size in taken.items()}


@contextmanager
def a_new_memory(url: str | None) -> Iterator[Memory]:
    """A memory with nothing in it: a file, or a schema of a database; it is dropped afterwards."""
    if url is None:
        with (
            tempfile.TemporaryDirectory() as temporary,
            Memory.open(Path(temporary) / "memory.db") as memory,
        ):
            yield memory
        return
    import psycopg

    from clara_mlx.store.opening import DEFAULT_SCHEMA, beside

    name = f"latency_{os.getpid()}"
    try:
        with Memory.open(beside(url, name)) as memory:
            yield memory
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {DEFAULT_SCHEMA}_{name} CASCADE")


def count_questions(memory: Memory) -> Counter[str]:
    """Counts what is asked of a memory's database from now on."""
    asked: Counter[str] = Counter()
    # Other checkouts may have more or fewer of these.
    for kind, names in (("reads", ("read", "removals")), ("writes", ("write",))):
        for name in names:
            method = getattr(memory.file, name)

            def counted(*given: Any, _kind: str = kind, _method: Any = method, **named: Any) -> Any:
                asked[_kind] += 1
                return _method(*given, **named)

            setattr(memory.file, name, counted)
    return asked


def conversation(folder: Path, seed: int) -> list[Message]:
    """The messages of all recorded runs, one run after the other, in an order of its own.

    Only the first run's instructions are kept. The ids of calls differ from run to run.
    """
    runs = sorted(path for path in folder.glob("*.json") if path.name != "needs.json")
    random.Random(seed).shuffle(runs)
    joined: list[Message] = []
    for number, path in enumerate(runs):
        for message in json.loads(path.read_text(encoding="utf-8")):
            if number and message["role"] == "system":
                continue
            if "tool_call_id" in message:
                message["tool_call_id"] = f"{number}-{message['tool_call_id']}"
            for call in message.get("tool_calls") or ():
                call["id"] = f"{number}-{call['id']}"
            joined.append(message)
    return joined


def requests(messages: list[Message]) -> Iterator[tuple[list[Message], int]]:
    """For each answer, what the client sent for it, parsed anew, and its tokens, about."""
    written = [json.dumps(message) for message in messages]
    characters = 0
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            yield json.loads(f"[{','.join(written[:index])}]"), characters // CHARACTERS_PER_TOKEN
        characters += len(written[index])


def spread(conversations: list[dict[str, Any]], size: str) -> dict[str, Any]:
    """Medians and 95th percentiles of the requests of a size, in all conversations."""
    taken = [figures for one in conversations for figures in one[size]]
    if len(taken) < 2:
        return {"requests": len(taken)}
    return {
        "requests": len(taken),
        "compactions": sum(one["compacted"] for one in taken),
        **{
            name: {
                "p50": round(median(values), 2),
                "p95": round(quantiles(values, n=20)[-1], 2),
                "most": round(max(values), 2),
            }
            for name in (*KINDS, *COUNTS)
            if (values := [one[name] for one in taken if name in one])
        },
    }


def table(results: dict[str, Any]) -> str:
    """The milliseconds as a table in Markdown: p50 / p95 of each kind."""
    lines = [
        f"| tokens | code | requests | compactions | {' | '.join((*KINDS, *COUNTS))} |",
        f"|{'---|' * (4 + len(KINDS) + len(COUNTS))}",
    ]
    for code, sizes in results["milliseconds"].items():
        for size, figures in sizes.items():
            cells = [
                f"{figures[name]['p50']} / {figures[name]['p95']}" if name in figures else "none"
                for name in (*KINDS, *COUNTS)
            ]
            counts = f"{figures['requests']} | {figures.get('compactions', 0)}"
            lines.append(f"| {int(size):,} | {code} | {counts} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
