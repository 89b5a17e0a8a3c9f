"""Real agents through the gateway: a task of many steps, compactions, a restart, facts asked back.

    python bench/agents.py --agents FOLDER [NAME ...] [--out FILE]

Each agent is installed into FOLDER from npm or PyPI, connected to a gateway of its own, and given a
task by a reasoner that is scripted: it has the agent's shell run commands over a copy of this
package's source. After the first half of the steps the gateway is ended and started again, the
agent continues its session, and before each further step the memory is asked for a fact of an
earlier one: by a question, and if that finds nothing, in the output whose handle is in view. Every
request that reaches the reasoner is checked. The exit status is 1 if something fell short.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from agents_checks import problems, unchanged
from agents_programs import PROGRAMS, Program, connect, disconnect
from agents_reasoner import Reasoner
from agents_task import make_project
from gateway_process import Gateway, gateway
from scripted_upstream import Upstream

from clara_mlx import machine

_STEPS = 44
_TASK = "Run the steps one by one, as you are told, and say when all are done."
_CONTINUE = "Go on with the next step."

# Seconds that an agent may take for one half.
_MOST_SECONDS = 900

# The least compactions that make a run say anything.
_LEAST_COMPACTIONS = 3


@dataclass
class Run:
    """What came of one agent's task."""

    agent: str
    version: str
    api: str
    window: int
    steps: int  # commands that it ran
    requests: int  # of the work, that reached the reasoner
    side_requests: int  # others, such as those for a title
    problems: list[str]  # of the requests that reached the reasoner, each once
    most_characters: int  # of a request's messages and tools
    unchanged: float  # median share of a request's messages that the next begins with
    unchanged_by_restart: float
    asked: int  # facts that were asked back, of those that the agent sent
    in_view: int  # of these, those that stood in what was sent
    found: int  # of these, those that `ask_memory` answered
    expanded: int  # of the others, those that `expand` showed
    compactions: int = 0
    is_restored: bool = True  # whether `connect --remove` gave its settings back to the byte
    exit: list[int] = field(default_factory=list)
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def main() -> int:
    """Run the agents that are named, or all."""
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--agents", type=Path, required=True, help="where they are installed")
    parser.add_argument("--steps", type=int, default=_STEPS, help="commands of the task")
    parser.add_argument("--keep", type=Path, help="where requests and logs are kept")
    parser.add_argument("--out", type=Path, help="where the results are written, as JSON")
    given = parser.parse_args()
    if unknown := set(given.names) - set(PROGRAMS):
        parser.error(f"there is no agent {', '.join(sorted(unknown))}")
    runs = []
    for name in given.names or PROGRAMS:
        program = PROGRAMS[name]
        program.install(given.agents)
        run = work(program, given.agents, given.steps, given.keep and given.keep / name)
        runs.append(run)
        print(json.dumps(asdict(run)), flush=True)
    if given.out:
        result = {"machine": machine.describe(), "runs": [asdict(run) for run in runs]}
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if any(run.failures for run in runs) else 0


def work(program: Program, agents: Path, count: int, keep: Path | None) -> Run:
    """Have an agent do the task, with a restart of the gateway in between."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        project, home = base / "project", base / "home"
        project.mkdir()
        home.mkdir()
        half = count // 2 if program.resume else count
        steps = make_project(project, count)
        reasoner = Reasoner(steps, half, program.shell, asks_early=not program.resume)
        upstream = Upstream(reasoner)
        begun = time.monotonic()
        exits, compactions, restart, is_restored = [], 0, 0, True
        task = _TASK
        if program.plan:
            program.plan(base / "plan", [step.command for step in steps])
            task = str(base / "plan")
        parts = [(program.start, task)] + ([(program.resume, _CONTINUE)] if program.resume else [])
        for arguments, told in parts:
            restart = len(reasoner.bodies)
            with gateway(upstream, "--window", str(program.window), db=base / "memory.db") as gate:
                url = f"http://{gate.host}:{gate.port}"
                before = _files(home)
                variables = connect(program, home, url)
                if not exits:  # as a user who changes their mind
                    disconnect(program, variables)
                    is_restored = _files(home) == before
                    connect(program, home, url)
                command = [str(program.path(agents)), *arguments, told]
                exits.append(_start(command, project, variables, base / "agent.log"))
                compactions += _compactions(gate)
                gate.stop()
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"gateway{len(exits)}.log").write_text(gate.said(), encoding="utf-8")
                disconnect(program, variables)
        upstream.close()
        if keep:
            (keep / "agent.log").write_bytes((base / "agent.log").read_bytes())
            _keep(reasoner, keep)
        run = _judge(program, agents, reasoner, restart)
        run.compactions, run.exit, run.is_restored = compactions, exits, is_restored
        run.seconds = round(time.monotonic() - begun, 1)
        run.failures = list(_failures(run, count))
        return run


def _start(command: list[str], project: Path, variables: Mapping[str, str], log: Path) -> int:
    """Run an agent to its end; the exit status, or -1 if it took too long."""
    with log.open("ab") as writing:
        try:
            done = subprocess.run(
                command,
                cwd=project,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                timeout=_MOST_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return -1
    return done.returncode


def _files(home: Path) -> dict[Path, bytes]:
    """What an agent's settings are, without the records that `connect` keeps."""
    found = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path: path.read_bytes() for path in found if ".clara-mlx" not in path.parts}


def _compactions(gate: Gateway) -> int:
    """The compactions of all conversations of a gateway."""
    status = gate.get("/v1/memory/status").json()
    return sum(one["compactions"] for one in status["conversations"])


def _keep(reasoner: Reasoner, folder: Path) -> None:
    with (folder / "requests.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(body) + "\n" for body in reasoner.bodies)


def _judge(program: Program, agents: Path, reasoner: Reasoner, restart: int) -> Run:
    bodies = reasoner.bodies
    shares = sorted(unchanged(a, b) for a, b in pairwise(bodies)) or [0.0]
    at_restart = bodies[max(0, restart - 1) : restart + 1]
    return Run(
        agent=program.name,
        version=program.version(agents),
        api=program.api,
        window=program.window,
        steps=reasoner.done,
        requests=len(bodies),
        side_requests=reasoner.side,
        problems=sorted({problem for body in bodies for problem in problems(body)}),
        most_characters=max((len(json.dumps(body)) for body in bodies), default=0),
        unchanged=round(shares[len(shares) // 2], 3),
        unchanged_by_restart=round(unchanged(*at_restart), 3) if len(at_restart) == 2 else 0.0,
        asked=len(reasoner.asked),
        in_view=sum(one.in_view for one in reasoner.asked),
        found=sum(one.found for one in reasoner.asked),
        expanded=sum(bool(one.expanded) for one in reasoner.asked),
    )


def _failures(run: Run, steps: int) -> list[str]:
    """What fell short, in words."""
    had = run.found + run.expanded
    said: dict[str, Any] = {
        f"it ended with {run.exit}": any(run.exit),
        f"it ran {run.steps} of {steps} steps": run.steps < steps,
        f"{run.compactions} compactions": run.compactions < _LEAST_COMPACTIONS,
        "requests with problems": bool(run.problems),
        "its settings were not given back": not run.is_restored,
        f"{run.asked - had} of {run.asked} facts lost": had < run.asked or not run.asked,
    }
    return [what for what, is_true in said.items() if is_true]


if __name__ == "__main__":
    sys.exit(main())
