"""What a team goes through: kills, many processes at once, several workers; each gives figures.

The tests do it at small size, `bench/team.py` at full size.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from memory_worker import some_text
from simulated_model import SimulatedModel, encoded
from team_process import Acknowledged, Process

from clara_mlx.memory import Memory
from clara_mlx.store.latents import drop_all_latents

# Seconds that the server has to come back after one of its processes was killed.
_BACK_SECONDS = 60


def kill(name: str, folder: Path, times: int, *, at_once: int = 2) -> dict[str, Any]:
    """Kill a process of the server, a worker and a writer in turn, so many times each.

    All the time ``at_once`` writers and as many workers are at it; what was acknowledged is checked
    at the end.
    """
    rng = random.Random(0)
    acknowledged = Acknowledged()
    log = folder / "encoded"
    seeds = iter(range(10**6))
    make: dict[str, Callable[[], Process]] = {
        "writer": lambda: Process("write", name, next(seeds), 3600, 0.1),
        "worker": lambda: Process("work", name, next(seeds), log, 0.005),
    }
    running = {kind: [one().start() for _ in range(at_once)] for kind, one in make.items()}
    spare = {kind: one() for kind, one in make.items()}  # getting ready takes a second
    killed = dict.fromkeys(("backend", "worker", "writer"), 0)
    for _ in range(times):
        for victim in killed:
            time.sleep(rng.uniform(0, 0.2))
            if victim == "backend":
                killed[victim] += _kill_backend(name)
                continue
            acknowledged.note(running[victim].pop(0).kill())
            killed[victim] += 1
            running[victim].append(spare[victim].start())
            spare[victim] = make[victim]()
    for kind in running:
        for process in (*running[kind], spare[kind]):
            acknowledged.note(process.kill())
    begun = time.monotonic()
    with Memory.open(name, SimulatedModel(log), compress=False) as memory:
        memory.work(once=True)
    return {
        "killed": killed,
        "acknowledged": len(acknowledged.kept),
        "failed for a while, not acknowledged": acknowledged.passing.total(),
        "seconds to finish the backlog": round(time.monotonic() - begun, 1),
        **_check(name, acknowledged),
        "texts that were encoded again": sum(count > 1 for count in encoded(log).values()),
    }


def _kill_backend(name: str) -> int:
    """SIGKILL a process of the server that serves this database, and wait until it is back."""
    with psycopg.connect(name, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid() "
            "ORDER BY state = 'active' DESC, random() LIMIT 1"
        ).fetchall()
    for (pid,) in rows:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            _await_server(name)
            return 1
    return 0


def _await_server(name: str) -> None:
    deadline = time.monotonic() + _BACK_SECONDS
    time.sleep(0.05)  # until it has noticed
    while True:
        try:
            psycopg.connect(name).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _check(name: str, acknowledged: Acknowledged) -> dict[str, Any]:
    """What is lost, damaged or left to do."""
    with Memory.open(name, SimulatedModel(), compress=False) as memory:
        status = memory.status()
        return {
            "lost": len(acknowledged.lost(memory)),
            "errors": acknowledged.errors,
            "problems": memory.verify().problems,
            "memories": status.memories,
            "chunks": status.chunks,
            "compressed": status.compressed,
            "pending": status.pending,
            "given up": status.failed,
            "last error": status.last_error,
        }


def together(
    name: str, folder: Path, seconds: float, *, writers: int, readers: int, workers: int
) -> dict[str, Any]:
    """Writers, readers and workers at once, in processes of their own."""
    log = folder / "encoded"
    with ThreadPoolExecutor(writers + readers + workers) as threads:
        jobs = [("write", seconds, 0.1)] * writers + [("read", seconds, 0.1)] * readers
        processes = [Process(job, name, seed, *rest) for seed, (job, *rest) in enumerate(jobs)]
        at_work = [Process("work", name, seed, log, 0.001) for seed in range(workers)]
        list(threads.map(Process.start, [*at_work, *processes]))
        said = [words for each in threads.map(Process.finish, processes) for words in each]
        acknowledged = Acknowledged()
        acknowledged.note(said)
        with Memory.open(name) as memory:
            left = memory.backlog()
            begun = time.monotonic()
            while memory.backlog():
                time.sleep(0.1)
        worked = [words for each in threads.map(Process.end, at_work) for words in each]
    counts = encoded(log)
    reads = [words for words in said if words[0] == "reads"]
    return {
        "writers": writers,
        "readers": readers,
        "workers": workers,
        "seconds": seconds,
        "written": len(acknowledged.kept),
        "reads": sum(int(words[1]) for words in reads),
        "median read, ms": round(1000 * median(float(words[2]) for words in reads), 1),
        "slowest read, ms": round(1000 * max(float(words[3]) for words in reads), 1),
        "failed for a while": acknowledged.passing,
        **_check(name, acknowledged),
        "left when the writers ended": left,
        "seconds to finish them": round(time.monotonic() - begun, 1),
        "contents by worker": [int(words[1]) for words in worked if words[0] == "worked"],
        "texts encoded": len(counts),
        "texts encoded more than once": sum(count > 1 for count in counts.values()),
    }


def compare_workers(
    name: str,
    folder: Path,
    contents: int,
    seconds_each: float,
    numbers: tuple[int, ...],
    *,
    repeats: int = 2,
) -> dict[str, Any]:
    """How long one worker and several need for the same backlog, in turns.

    The model is simulated: it takes ``seconds_each`` for each chunk, in which the machine is idle,
    as it is when the work is done by a GPU, or on other machines.
    """
    rng = random.Random(1)
    with Memory.open(name) as memory:
        for _ in range(contents):
            memory.remember(some_text(rng, most=3))
    took: dict[int, list[float]] = {number: [] for number in numbers}
    for repeat, number in enumerate(numbers * repeats):
        log = folder / f"encoded-{repeat}"
        workers = [Process("work", name, seed, log, seconds_each, "once") for seed in range(number)]
        with ThreadPoolExecutor(number) as threads:
            list(threads.map(Process.start, workers))
            said = [words for each in threads.map(Process.finish, workers) for words in each]
        took[number].append(max(float(words[3]) for words in said if words[0] == "worked"))
        assert set(encoded(log).values()) == {1}
        with Memory.open(name, SimulatedModel(), compress=False) as memory:
            status = memory.status()
            assert status.compressed == status.chunks and not status.pending + status.failed
            drop_all_latents(memory._store)
    medians = {number: median(times) for number, times in took.items()}
    return {
        "contents": contents,
        "chunks": status.chunks,
        "simulated seconds for each chunk": seconds_each,
        "seconds by number of workers": took,
        "times as fast as one": {
            number: round(medians[1] / seconds, 2) for number, seconds in medians.items()
        },
    }
