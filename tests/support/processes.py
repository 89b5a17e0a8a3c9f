"""The processes that a process has started, and whether one is alive."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def children(parent: int | None = None, named: str = "") -> set[int]:
    """The children of a process, by default of this one.

    Args:
        parent: The process.
        named: Only those whose command line has this.
    """
    command = ["pgrep", "-P", str(parent or os.getpid()), *(["-f", named] if named else [])]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(map(int, found.stdout.split()))


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or ") Z " not in state.read_text()
