"""Outputs of real commands, kept by bench/capture: for evaluation, never for training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.probes.probe import Output, Probe


class CaptureError(ClaraError):
    """Captured outputs can't be made or read."""


@dataclass(frozen=True)
class Captured(Output):
    """A real output with the command that made it.

    Attributes:
        command: as it was given; ``python`` is the interpreter that ran the capture.
        rewritten: neutral folders that replace this machine's own in the text.
    """

    command: str
    rewritten: tuple[str, ...]


def read(file: Path) -> list[Captured]:
    """Read captured outputs: JSON lines, one output each.

    Raises:
        CaptureError: the file can't be read, or a line is not a captured output; it names the line.
    """
    captured = []
    try:
        # Not splitlines: an output may hold U+2028.
        lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CaptureError(f"{file}: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            raw = json.loads(line)
            probes = tuple(Probe(**probe) for probe in raw.pop("probes"))
            rewritten = tuple(raw.pop("rewritten"))
            captured.append(Captured(probes=probes, rewritten=rewritten, **raw))
        except (ValueError, KeyError, TypeError, AttributeError, ClaraError) as error:
            raise CaptureError(f"{file}:{number}: not a captured output: {error}") from error
    return captured
