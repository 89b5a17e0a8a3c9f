"""Put a memory file under stress: kills, writers and readers at once, a reader that stays open.

python bench/stress.py kill [MODEL_FOLDER]          # 200 SIGKILLs
python bench/stress.py concurrency [MODEL_FOLDER]   # 4 writers and 4 readers for a minute
python bench/stress.py wal [TEXTS [CHARACTERS]]     # the write-ahead log beside a reader

Results go to bench/results/stress_kill.json and so on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from memory_worker import Ledger, make_version_1, run_together

# How long the writers and readers work.
SECONDS = 60


def kill(folder: Path, model: str | None) -> dict[str, object]:
    """Kill workers at random moments of each job, and assert that nothing was lost."""
    figures: dict[str, object] = {}
    jobs = [("remember", 50, 0.3), ("forget", 45, 0.3), ("vacuum", 45, 0.4), ("compress", 20, 1.0)]
    for job, count, within in jobs:
        if job == "compress" and not model:
            continue
        ledger = Ledger(folder / f"{job}.db")
        for number in range(count):
            ledger.kill(job, 1000 + number, within, *([model] if job == "compress" else []))
        figures[job] = {"kills": ledger.kills, "acknowledged": len(ledger.kept)}
        if job == "compress":
            figures["pending work completes"] = complete(ledger, str(model))
    old = folder / "old.db"
    kept = make_version_1(old, 60)
    for number in range(40):
        path = folder / f"migrate{number}.db"
        shutil.copy(old, path)
        ledger = Ledger(path)
        ledger.kept = dict(kept)
        ledger.kill("migrate", 1000 + number, 0.04)
    figures["migrate"] = {"kills": 40, "acknowledged": len(kept)}
    return figures


def complete(ledger: Ledger, model: str) -> str:
    """Compress what the killed workers left, and assert that it works."""
    import clara_mlx
    from clara_mlx.memory import Memory

    with Memory.open(ledger.path, clara_mlx.load(model)) as memory:
        pending = memory.status().pending
        memory.flush(300)
        status = memory.status()
        assert status.pending == status.failed == 0
        assert status.compressed == status.chunks
    ledger.check()
    return f"{pending} contents were pending, none is"


def wal(folder: Path, texts: int = 5000, characters: int = 12_000) -> dict[str, object]:
    """Remember texts of words that occur nowhere else, beside a reader that stays open."""
    from clara_mlx.memory import Memory

    path = folder / "m.db"
    log = Path(f"{path}-wal")
    largest = slowest = 0.0
    with Memory.open(path) as memory:
        memory.remember("the first")
        reader = subprocess.Popen([sys.executable, "-c", _READER, path], stdout=subprocess.PIPE)
        assert reader.stdout and reader.stdout.readline()
        begun = time.monotonic()
        for number in range(texts):
            words = (f"{number * 7919 + n:x}" for n in range(characters // 4))
            before = time.monotonic()
            memory.remember(f"{number} {' '.join(words)}"[:characters])
            slowest = max(slowest, time.monotonic() - before)
            largest = max(largest, log.stat().st_size)
        seconds = time.monotonic() - begun
        reader.kill()
        reader.wait()
        begun = time.monotonic()
        assert memory.recall(f"{(texts - 1) * 7919:x}")
        recall = time.monotonic() - begun
        memory.remember("the last")
        return {
            "texts": texts,
            "characters": characters,
            "largest log in MB": round(largest / 1e6, 1),
            "log in kB for each text": round(largest / texts / 1e3, 1),
            "seconds to remember them": round(seconds, 1),
            "slowest of them in seconds": round(slowest, 2),
            "seconds until the next recall has them all": round(recall, 1),
            "log afterwards in MB": round(log.stat().st_size / 1e6, 1),
            "problems": memory.verify().problems,
        }


_READER = """
import sys, time
from clara_mlx.store.store import Store
store = Store(sys.argv[1])
with store.snapshot():
    store.read("SELECT count(*) FROM memories")
    print("reads", flush=True)
    time.sleep(3600)
"""


def main(what: str, *options: str) -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = options[0] if options else None
        if what == "kill":
            figures = kill(Path(folder), model)
        elif what == "wal":
            figures = wal(Path(folder), *map(int, options))
        else:
            models = [model or "", model or "", "", ""]
            figures = run_together(Path(folder) / "m.db", SECONDS, models, readers=4)
    from clara_mlx import machine

    figures["seconds"] = round(time.monotonic() - start)
    figures["machine"] = machine.describe()
    text = json.dumps(figures, indent=2)
    results = Path(__file__).parent / "results"
    (results / f"stress_{what}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
