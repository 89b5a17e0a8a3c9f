"""Child processes of the memory's tests, and a ledger of what the memory has acknowledged to them.

``python memory_worker.py JOB PATH SEED [SECONDS] [MODEL]`` prints ``ready`` once everything is
imported, and then each thing that it did, right after the memory has acknowledged it.
"""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from clara_mlx.errors import StoreError
from clara_mlx.model import chunking
from clara_mlx.store import care, search
from clara_mlx.store.driver import connect, use_wal
from clara_mlx.store.migrations import m001_create_originals
from clara_mlx.store.store import Store

WORDS = [
    "error",
    "warning",
    "test",
    "build",
    "failed",
    "passed",
    "load",
    "store",
    "index",
    "memory",
    "token",
    "latent",
    "kernel",
]


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")  # at once, as two threads may say something
    sys.stdout.flush()


def some_text(rng: random.Random, most: int = 100) -> str:
    """A line up to a few pages that hardly compress, with a word that occurs nowhere else."""
    lines = min(rng.choice((1, 1, 3, 30, 100)), most)
    return f"only{rng.getrandbits(64):016x} " + "\n".join(
        f"{rng.choice(WORDS)} {rng.getrandbits(128):x} {rng.choice(WORDS)}" for _ in range(lines)
    )


def remember(store: Store, text: str, **kwargs: Any) -> str:
    """Remember a text as `Memory.remember` does without a model."""
    spans = ((start, end, None) for start, end in chunking.split_characters(text, 768))
    return store.remember(text.encode(), text, spans, **kwargs)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- jobs ----------------------------------------------------------------------------------------


def job_remember(path: Path, rng: random.Random) -> None:
    store = Store(path)
    while True:
        text = some_text(rng)
        say("kept", remember(store, text, source="worker"), sha(text.encode()))


def job_forget(path: Path, rng: random.Random) -> None:
    store = Store(path)
    handles: list[str] = []
    while True:
        for _ in range(3):
            text = some_text(rng)
            handles.append(remember(store, text))
            say("kept", handles[-1], sha(text.encode()))
        handle = handles.pop(rng.randrange(len(handles)))
        say("forgets", handle)
        store.forget({"handle": handle})


def job_vacuum(path: Path, rng: random.Random) -> None:
    store = Store(path)
    while True:
        text = some_text(rng)
        say("kept", remember(store, text), sha(text.encode()))
        care.vacuum(store)


def job_migrate(path: Path, rng: random.Random) -> None:
    Store(path)
    say("migrated")
    time.sleep(60)


def job_compress(path: Path, rng: random.Random, model: str) -> None:
    import clara_mlx
    from clara_mlx.memory import Memory

    clara = clara_mlx.load(model)
    say("ready")
    memory = Memory.open(path, clara)
    while True:
        text = some_text(rng, most=3)
        say("kept", memory.remember(text), sha(text.encode()))
        time.sleep(0.005)


def job_move(path: Path, rng: random.Random, model: str) -> None:
    """Remember a little, and move the memory to a model, again and again."""
    import clara_mlx
    from clara_mlx.memory import Memory

    compressor = clara_mlx.load(model)
    say("ready")
    while True:
        with Memory.open(path, compressor) as memory:
            text = some_text(rng, most=3)
            say("kept", memory.remember(text), sha(text.encode()))
            memory.recompress()


def job_write(path: Path, rng: random.Random, seconds: float, model: str = "") -> None:
    """Remember for some seconds; with a model also compress, and say when each batch was put."""
    memory = None
    if model:
        import clara_mlx
        from clara_mlx.memory import Memory
        from clara_mlx.store.latents import LatentTable

        put = LatentTable.put

        def timed(*args: Any) -> None:
            start = time.time()
            put(*args)
            say("put", start, time.time())

        LatentTable.put = timed  # type: ignore[assignment, method-assign]
        memory = Memory.open(path, clara_mlx.load(model))
    store = memory._store if memory else Store(path)
    say("ready")
    end = time.monotonic() + seconds
    worst = 0.0
    while time.monotonic() < end:
        text = some_text(rng)
        start = time.monotonic()
        try:
            handle = remember(store, text, source="writer")
        except StoreError as error:
            say("error", error)
            continue
        worst = max(worst, time.monotonic() - start)
        say("kept", handle, sha(text.encode()))
    say("worst", worst)
    if memory:
        memory.close()


def job_read(path: Path, rng: random.Random, seconds: float) -> None:
    """Search, read originals and count for some seconds; say how long the slowest took."""
    store = Store(path)
    say("ready")
    end = time.monotonic() + seconds
    took = []
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            found = search.search(store, None, None, rng.choice(WORDS), 5, None)
            for each in found:
                store.original(each.handle)
            store.figures()
        except StoreError as error:
            say("error", error)
        took.append(time.monotonic() - start)
    took.sort()
    say("reads", len(took), took[len(took) // 2], took[len(took) * 99 // 100], took[-1])


# -- the other side --------------------------------------------------------------------------------


class Worker:
    """A child process that does a job."""

    def __init__(self, job: object, path: Path, seed: int, *arguments: object) -> None:
        command = [sys.executable, __file__, job, path, seed, *arguments]
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.out = self.process.stdout
        assert self.out.readline() == "ready\n"

    def kill_after(self, seconds: float) -> list[list[str]]:
        """SIGKILL it, and return what it said until then, without a torn last line."""
        time.sleep(seconds)
        self.process.send_signal(signal.SIGKILL)
        return self.finish(-signal.SIGKILL)

    def finish(self, status: int = 0) -> list[list[str]]:
        """Wait for its end, which must have this status; returns what it said."""
        said = self.out.read().split("\n")[:-1]
        self.out.close()
        assert self.process.wait() == status
        return [line.split(" ") for line in said]


class Ledger:
    """The acknowledgements about one file, to check that they hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, str] = {}  # handle -> SHA-256
        self.doubtful: tuple[str, str] | None = None  # being forgotten when the worker was killed
        self.kills = 0

    def note(self, said: list[list[str]]) -> None:
        self.doubtful = None
        for words in said:
            if words[0] == "kept":
                self.kept[words[1]] = words[2]
                self.doubtful = None
            elif words[0] == "forgets":
                self.doubtful = words[1], self.kept.pop(words[1])

    def kill(self, job: str, seed: int, within: float, *arguments: object) -> list[list[str]]:
        """Run a job, kill it at a random moment, and check the file; returns what it said."""
        worker = Worker(job, self.path, seed, *arguments)
        said = worker.kill_after(random.Random(seed).uniform(0, within))
        self.note(said)
        self.kills += 1
        self.check()
        return said

    def check(self) -> None:
        """Every original is kept and identical, every forgotten one is gone, the file is sound."""
        store = Store(self.path)
        try:
            handles = {memory.handle for memory in store.memories()}
            if self.doubtful and self.doubtful[0] in handles:
                self.kept[self.doubtful[0]] = self.doubtful[1]
            for handle, digest in self.kept.items():
                assert sha(store.original(handle)[0]) == digest
            # One more may have been committed and not been acknowledged, by each killed worker.
            assert len(handles - self.kept.keys()) <= self.kills
            assert care.verify(store).problems == []
        finally:
            store.close()


def run_together(
    path: Path, seconds: float, models: Sequence[str | Path], readers: int
) -> dict[str, Any]:
    """Writers (one for each of ``models``, "" compresses nothing) and readers of one file."""
    jobs: list[tuple[str | Path, ...]] = [
        ("write", model) if model else ("write",) for model in models
    ]
    jobs += [("read",)] * readers
    with ThreadPoolExecutor(len(jobs)) as threads:  # they get ready together
        workers = list(
            threads.map(
                lambda each: Worker(each[1][0], path, each[0], seconds, *each[1][1:]),
                enumerate(jobs),
            )
        )
        said = [words for each in threads.map(Worker.finish, workers) for words in each]
    ledger = Ledger(path)
    ledger.note([words for words in said if words[0] == "kept"])
    store = Store(path)
    there = {memory.handle for memory in store.memories()}
    lost = [
        handle
        for handle, digest in ledger.kept.items()
        if handle not in there or sha(store.original(handle)[0]) != digest
    ]
    problems = care.verify(store).problems
    store.close()
    batches = sorted((float(words[1]), float(words[2])) for words in said if words[0] == "put")
    reads = [words for words in said if words[0] == "reads"]
    return {
        "errors": [" ".join(words) for words in said if words[0] == "error"],
        "writes": len(ledger.kept),
        "lost": len(lost),
        "slowest write, ms": max(float(w[1]) for w in said if w[0] == "worst") * 1000,
        "reads": sum(int(words[1]) for words in reads),
        "median read, ms": max(float(words[2]) for words in reads) * 1000,
        "p99 read, ms": max(float(words[3]) for words in reads) * 1000,
        "slowest read, ms": max(float(words[4]) for words in reads) * 1000,
        "batches": len(batches),
        "overlapping batches": sum(b[0] < a[1] for a, b in pairwise(batches)),
        "problems": problems,
    }


def make_version_1(path: Path, count: int) -> dict[str, str]:
    """A file as it was after the first migration; its handles and their SHA-256."""
    connection = connect(path)
    use_wal(connection)
    connection.execute("BEGIN IMMEDIATE")
    m001_create_originals(connection)
    connection.execute("PRAGMA user_version = 1")
    kept = {}
    rng = random.Random(1)
    for number in range(1, count + 1):
        text = some_text(rng)
        data = text.encode()
        connection.execute(
            "INSERT INTO contents (id, sha256, kind, length, compression, data) "
            "VALUES (?, ?, 'text', ?, 'none', ?)",
            (number, hashlib.sha256(data).digest(), len(data), data),
        )
        connection.execute(
            "INSERT INTO memories (handle, content_id, created_at) VALUES (?, ?, ?)",
            (f"m-{number}", number, float(number)),
        )
        connection.execute(
            "INSERT INTO chunks (id, content_id, start, end) VALUES (?, ?, 0, ?)",
            (number, number, len(text)),
        )
        connection.execute(
            "INSERT INTO chunk_text (rowid, text, parts) VALUES (?, ?, '')", (number, text)
        )
        kept[f"m-{number}"] = sha(data)
    connection.execute("COMMIT")
    connection.close()
    return kept


JOBS: dict[str, Callable[..., None]] = {
    name.removeprefix("job_"): job for name, job in globals().items() if name.startswith("job_")
}


def main(job: str, path: str, seed: str, *arguments: str) -> None:
    if job not in ("compress", "write", "read"):  # those are ready later
        say("ready")
    numbers = [float(a) if a.replace(".", "").isdigit() else a for a in arguments]
    JOBS[job](Path(path), random.Random(int(seed)), *numbers)


if __name__ == "__main__":
    main(*sys.argv[1:])
