"""Put a memory file under stress: 200 SIGKILLs, or 4 writers and 4 readers for a minute.

python bench/stress.py kill [MODEL_FOLDER]
python bench/stress.py concurrency [MODEL_FOLDER]

Results go to bench/results/stress_kill.json and stress_concurrency.json.
"""

from __future__ import annotations

import json
import shutil
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


def main(what: str, model: str | None = None) -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if what == "kill":
            figures = kill(Path(folder), model)
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
