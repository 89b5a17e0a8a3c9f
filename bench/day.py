"""A day of agents' work through the gateway: the ledger beside the metrics and the reasoner's log.

    python bench/day.py --trajectories FOLDER [--only NAME ...]

Recorded runs of agents (their format is described in README.md) are sent through a gateway as their
agents sent them, request by request. The reasoner behind it answers what was recorded, keeps the
prefix of the last prompt as a server does, now and then asks for the text behind a handle, and logs
what it was sent. Then three accounts are compared, which must be equal: the sums in the memory's
file, which `clara-mlx stats` and the inspector show; the gateway's /metrics; and that log. The page
of savings must show them, and the exported tables must have them. The exit status is 1 if anything
differs. Results go to bench/results/day.json.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from gateway import Upstream, gateway
from real_trajectories import read_runs
from replayed_agent import LoggingReasoner, metrics, replay, tools_of

from clara_mlx import Memory, machine
from clara_mlx.context import Budget
from clara_mlx.serve.inspector.entry import PREFIX
from clara_mlx.store.sums import Sums

RESULTS = Path(__file__).parent / "results"

# What the programs that made the recordings call themselves, by how their names begin.
AGENTS = {"mini": "mini-swe-agent/2.0", "oh": "OpenHands/1.0", "pi": "pi/0.30"}


def main() -> None:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trajectories", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--window", type=int, default=32_768)
    parser.add_argument("--output", type=Path, default=RESULTS / "day.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.trajectories, options.only, options.window, Path(folder))
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    for name, values in result["accounts"].items():
        print(f"{name:>18}  " + "  ".join(f"{key} {value:,}" for key, value in values.items()))
    for name, row in result["by agent"].items():
        share = 100 * row["tokens_sent"] / row["tokens_in"]
        print(f"{name:>18}  {row['requests']:,} requests, {share:.1f}% of the tokens sent")
    print("differences: " + ("; ".join(result["differences"]) or "none"))
    sys.exit(bool(result["differences"]))


def measure(folder: Path, only: list[str], window: int, work: Path) -> dict[str, Any]:
    """Replay the runs, and compare the three accounts."""
    reasoner = LoggingReasoner(ask_every=5)
    requests = 0
    begun = time.monotonic()
    with (
        Upstream(reasoner.replies).running() as url,
        gateway(work, url, budget=Budget(window=window)) as gate,
    ):
        for run in read_runs(folder, only):
            agent = AGENTS.get(run.name.partition("-")[0], "")
            headers = {"user-agent": agent, "x-clara-session": run.name}
            tools = tools_of(run.messages)
            before = len(reasoner.log)
            requests += replay(
                run.messages,
                reasoner,
                lambda sent, tools=tools, headers=headers: gate.chat(  # type: ignore[misc]
                    sent, tools=tools, extra_headers=headers
                ),
            )
            print(f"{run.name}: {len(reasoner.log) - before} prompts", file=sys.stderr)
        seconds = time.monotonic() - begun
        counted = metrics(gate.http)
        time.sleep(1.5)  # what was counted last is being written
        page = gate.http.get(f"{PREFIX}savings").text
    with Memory.open(work / "agent.db") as memory:
        (sums,) = memory.ledger.sums()
        by_agent = {str(row.agent): asdict(row) for row in memory.ledger.sums(["agent"])}
        sessions = len(memory.ledger.sums(["session"]))
        memories = memory.export_sqlite(work / "tables.db")
    accounts = {
        "memory's file": of_ledger(sums),
        "metrics": of_metrics(counted),
        "reasoner's log": of_log(reasoner),
        "exported tables": of_tables(work / "tables.db"),
    }
    return {
        "machine": machine.describe(),
        "window": window,
        "requests": requests,
        "sessions": sessions,
        "memories": memories,
        "seconds": round(seconds, 1),
        "accounts": accounts,
        "by agent": by_agent,
        "differences": [*differences(accounts, requests), *not_shown(page, sums)],
    }


def of_ledger(sums: Sums) -> dict[str, int]:
    """What the ledger says."""
    names = (*_LOGGED, "requests", "tokens_in", "cached_expected", "compactions")
    return {name: getattr(sums, name) for name in names}


def of_metrics(counted: dict[str, float]) -> dict[str, int]:
    """What the metrics say; they count no requests for answers alone."""
    whats = ("in", "sent", "cached_expected", "cached_reported")
    tokens = {w: int(counted[f'clara_prompt_tokens_total{{what="{w}"}}']) for w in whats}
    calls = [n for name, n in counted.items() if name.startswith("clara_memory_calls_total{")]
    return {
        "tokens_in": tokens["in"],
        "tokens_sent": tokens["sent"],
        "cached_expected": tokens["cached_expected"],
        "cached_reported": tokens["cached_reported"],
        "completion_tokens": int(counted["clara_completion_tokens_total"]),
        "compactions": int(counted["clara_compactions_total"]),
        "memory_calls": int(sum(calls)),
    }


def of_log(reasoner: LoggingReasoner) -> dict[str, int]:
    """What the reasoner has logged."""
    log = reasoner.log
    return {
        "rounds": len(log),
        "tokens_sent": sum(line.prompt_tokens for line in log),
        "cached_reported": sum(line.cached_tokens for line in log),
        "prefilled": sum(line.prompt_tokens - line.cached_tokens for line in log),
        "completion_tokens": sum(line.completion_tokens for line in log),
        "memory_calls": sum(line.asks for line in log),
    }


def of_tables(file: Path) -> dict[str, int]:
    """What the tables say that were exported for other programs."""
    connection = sqlite3.connect(file)
    sums = ", ".join(f"sum({name})" for name in _LOGGED)
    row = connection.execute(f"SELECT {sums} FROM days").fetchone()
    connection.close()
    return dict(zip(_LOGGED, row, strict=True))


_LOGGED = (
    "rounds",
    "tokens_sent",
    "cached_reported",
    "prefilled",
    "completion_tokens",
    "memory_calls",
)


def differences(accounts: dict[str, dict[str, int]], requests: int) -> list[str]:
    """What two accounts say differently."""
    ledger = accounts["memory's file"]
    found = [
        f"{name}: {key} is {value}, and {ledger[key]} in the memory's file"
        for name, account in accounts.items()
        for key, value in account.items()
        if ledger[key] != value
    ]
    if ledger["requests"] != requests:
        found.append(
            f"{requests} requests were sent, {ledger['requests']} are in the memory's file"
        )
    return found


def not_shown(page: str, sums: Sums) -> list[str]:
    """Figures that the inspector's page of savings does not show."""
    names = ("requests", "tokens_in", "tokens_sent", "cached", "prefilled", "compactions")
    figures = {name: f"{getattr(sums, name):,}" for name in names}
    return [
        f"the page of savings does not show {name} {figure}"
        for name, figure in figures.items()
        if f">{figure}<" not in page and f" {figure} " not in page
    ]


if __name__ == "__main__":
    main()
