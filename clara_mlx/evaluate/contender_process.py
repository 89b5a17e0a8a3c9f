"""A process for each compressor that is measured, so that its memory is its own.

The process reads one JSON object from its standard input, and writes JSON objects, one a line:
how far it is, and at last what it found. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clara_mlx.errors import ClaraError, Progress
from clara_mlx.evaluate.contender import Contender, measure
from clara_mlx.evaluate.exam import Exam

_CODE = "import sys; sys.path[:] = {path}; from clara_mlx.evaluate.contender_process import main"


def measure_apart(
    contender: Contender, exam: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """`contender.measure` in a process of its own.

    Args:
        contender: What to measure.
        exam: A file with `Exam.to_json`.
        progress: Called as the process tells how far it is.

    Raises:
        ClaraError: The compressor can't be loaded or fails, or the process ends before it is done.
    """
    path = [one or os.getcwd() for one in sys.path]
    command = [sys.executable, "-P", "-c", f"{_CODE.format(path=path)}; main()"]
    given = json.dumps({"contender": asdict(contender), "exam": str(exam)})
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdin and process.stdout
        try:
            process.stdin.write(given)
            process.stdin.close()
            for line in process.stdout:
                message = json.loads(line)
                if "found" in message:
                    return dict(message["found"])
                if "error" in message:
                    raise ClaraError(f"{contender.name}: {message['error']}")
                if progress:
                    progress(*message["progress"])
            status = process.wait()
        finally:
            process.kill()  # it has nothing left to say, or was interrupted
    raise ClaraError(
        f"{contender.name}: the process that measured it ended with {status} before it was done; "
        "what it printed says why, or it had too little memory"
    )


def main() -> None:
    """Measure what standard input asks for."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        lines.write(json.dumps(message) + "\n")

    given = json.loads(sys.stdin.read())
    exam = Exam.from_json(json.loads(Path(given["exam"]).read_text(encoding="utf-8")))
    contender = Contender(**given["contender"])
    try:
        found = measure(contender, exam, lambda *step: send({"progress": step}))
    except ClaraError as error:
        send({"error": str(error)})
    else:
        send({"found": found})
