"""Runs `clara-mlx serve` as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(
    db: Path, *options: str, files: int | None = None, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a memory on a free port; gives the base URL and the process, which is killed after.

    ``files`` is the number of files that the process may open.
    """
    code = "from clara_mlx.cli.serve import commands; commands()"
    if files:
        limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))"
        code = f"import resource; {limit}; {code}"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--db", str(db), *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert process.stderr
    try:
        first = process.stderr.readline()
        match = re.search(r"http://\S+", first)
        assert match, first + process.stderr.read()
        yield match[0], process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
