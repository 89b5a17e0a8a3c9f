"""`clara-mlx` as mlx.launch starts it: several processes on this machine, connected in a ring."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

# Each rank writes its process id, so that a test can kill one; {rank} stands for its number.
_CHILD = """
import os, sys
from pathlib import Path
rank = os.environ["MLX_RANK"]
Path(sys.argv.pop(1), f"rank-{rank}").write_text(str(os.getpid()))
sys.argv[1:] = [argument.replace("{rank}", rank) for argument in sys.argv[1:]]
from clara_mlx.cli.app import main
main()
"""


def launch(folder: Path, *arguments: Any, ranks: int = 2) -> subprocess.Popen[str]:
    """Start ``clara-mlx`` with these arguments as several ranks; ``folder`` gets their ids."""
    port = random.SystemRandom().randrange(20000, 32000)  # others launch at the same time
    command = [
        *(str(Path(sys.executable).with_name("mlx.launch")), "-n", str(ranks)),
        *("--backend", "ring", "--starting-port", str(port), "--"),
        *(sys.executable, "-c", _CHILD, str(folder), *map(str, arguments)),
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(launched: subprocess.Popen[str], within: float = 300.0) -> tuple[str, str]:
    """Standard output and standard error of all ranks, once they have ended."""
    try:
        return launched.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        os.killpg(launched.pid, signal.SIGKILL)
        raise


def run(folder: Path, *arguments: Any, ranks: int = 2) -> str:
    """Standard output of ``clara-mlx`` as several ranks, none of which may fail."""
    output, errors = finish(launch(folder, *arguments, ranks=ranks))
    assert "exited with code" not in errors, errors
    return output


def pid_of(folder: Path, rank: int) -> int:
    """The process id of a rank that was launched."""
    return int((folder / f"rank-{rank}").read_text())
