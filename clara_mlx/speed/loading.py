"""Loading a model folder: seconds and bytes, each time in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from clara_mlx.errors import ClaraError
from clara_mlx.speed.sampling import spread

_PROCESS = "clara_mlx.speed.loading_process"


def measure_loading(path: Path, loads: int) -> dict[str, Any]:
    """Load a model folder in new processes, and all of its adapters after it.

    The operating system may keep the files in memory between two loads, and usually does from the
    second on; nothing is done about it, as that is how a model is loaded in use.

    Returns:
        The spread of ``seconds``, and the largest of each number of bytes: ``array_bytes`` of the
        base, ``array_bytes_with_adapters``, ``peak_array_bytes``, ``resident_bytes`` of the process
        once the base is loaded, ``peak_resident_bytes``.

    Raises:
        ClaraError: It can't be loaded.
    """
    taken = [_load(path) for _ in range(loads)]
    seconds = spread([one.pop("seconds") for one in taken])
    return seconds | {name: max(one[name] for one in taken) for name in taken[0]}


def _load(path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", _PROCESS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ClaraError(f"{path}: a process of its own could not load it: {last:.300}")
    return dict(json.loads(done.stdout))
