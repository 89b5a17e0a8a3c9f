"""Processes of a team that shares one memory, and a ledger of what it has acknowledged to them.

``python team_process.py JOB MEMORY SEED [ARGUMENTS]`` prints ``ready`` once the memory is open,
waits for a line, and then prints each thing that it did, right after it was acknowledged.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from memory_worker import WORDS, say, sha, some_text
from simulated_model import SimulatedModel

from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory

# Seconds until a process tries again what failed, as the database restarts.
_AGAIN_SECONDS = 0.05


def wait_for_start() -> None:
    say("ready")
    sys.stdin.readline()


# -- jobs ----------------------------------------------------------------------------------------


def job_write(name: str, seed: int, seconds: str, pause: str = "0") -> None:
    """Remember texts for some seconds; what fails for a while is said, and something else tried."""
    rng = random.Random(seed)
    with Memory.open(name) as memory:
        wait_for_start()
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            text = some_text(rng, most=3)
            try:
                handle = memory.remember(text, source=f"writer {seed}")
            except StoreError as error:
                say("error", error.transient, " ".join(str(error).split()))
                time.sleep(_AGAIN_SECONDS)
                continue
            say("kept", handle, sha(text.encode()))
            time.sleep(float(pause))


def job_read(name: str, seed: int, seconds: str, pause: str = "0") -> None:
    """Search, by words and by latents, and read originals for some seconds."""
    rng = random.Random(seed)
    with Memory.open(name, SimulatedModel(), compress=False) as memory:
        wait_for_start()
        end = time.monotonic() + float(seconds)
        took = []
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                for hit in memory.recall(" ".join(rng.sample(WORDS, 2)), 5):
                    memory.original(hit.handle)
            except StoreError as error:
                say("error", error.transient, " ".join(str(error).split()))
            took.append(time.monotonic() - start)
            time.sleep(float(pause))
    took.sort()
    say("reads", len(took), took[len(took) // 2], took[-1])


def job_work(name: str, seed: int, log: str, seconds: str, *options: str) -> None:
    """Work until SIGTERM; with ``once``, until nothing waits."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    fingerprint = next((one for one in options if one != "once"), "a model")
    model = SimulatedModel(Path(log), float(seconds), fingerprint)
    with Memory.open(name, model, compress=False) as memory:
        wait_for_start()
        start = time.monotonic()
        worked = memory.work(once="once" in options)
        say("worked", worked.contents, worked.chunks, time.monotonic() - start)


JOBS: dict[str, Callable[..., None]] = {
    name.removeprefix("job_"): job for name, job in globals().items() if name.startswith("job_")
}


# -- the other side ------------------------------------------------------------------------------


class Process:
    """A process that does a job; it is ready when this returns, and works from `start` on."""

    def __init__(self, job: str, name: str, seed: int, *arguments: object) -> None:
        command = [sys.executable, __file__, job, name, seed, *arguments]
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self) -> Process:
        """Have it begin, as soon as it is ready."""
        assert self._process.stdout and self._process.stdin
        said = self._process.stdout.readline()
        assert said == "ready\n", said
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self

    def kill(self) -> list[list[str]]:
        """SIGKILL it; returns what it said until then, without a torn last line."""
        self._process.kill()
        return self.finish()

    def end(self) -> list[list[str]]:
        """SIGTERM it; returns what it said."""
        self._process.send_signal(signal.SIGTERM)
        said = self.finish()
        assert self._process.returncode == 0
        return said

    def finish(self) -> list[list[str]]:
        """Wait for its end; returns what it said."""
        assert self._process.stdout and self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        lines = self._process.stdout.read().split("\n")[:-1]
        self._process.stdout.close()
        self._process.wait()
        return [line.split(" ") for line in lines]


class Acknowledged:
    """What a team was told is kept, to check that it is.

    Attributes:
        kept: SHA-256 of originals, by handle.
        passing: How often each error was said that may pass.
        errors: The same of all others.
    """

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.passing: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def note(self, said: Iterable[list[str]]) -> None:
        """Note what a process said."""
        for words in said:
            if words[0] == "kept" and len(words) == 3:
                self.kept[words[1]] = words[2]
            elif words[0] == "error":
                (self.passing if words[1] == "True" else self.errors)[" ".join(words[2:])] += 1

    def lost(self, memory: Memory) -> list[str]:
        """Handles of which the memory has no original, or another one."""
        return [
            handle
            for handle, digest in self.kept.items()
            if not memory.has(handle) or sha(memory.original_bytes(handle)) != digest
        ]


def main(job: str, name: str, seed: str, *arguments: str) -> None:
    JOBS[job](name, int(seed), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
