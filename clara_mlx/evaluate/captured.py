"""Outputs of real commands, captured by bench/capture: for evaluation, never for training."""

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
    """A real output with the command that printed it.

    Attributes:
        command: The command line; ``python`` is the interpreter that ran the capture.
        rewritten: Neutral folders that the text names in place of the machine's own.
    """

    command: str
    rewritten: tuple[str, ...]


def read_captured(file: Path) -> list[Captured]:
    """Read captured outputs from JSON lines.

    Raises:
        CaptureError: The file can't be read, or one of its lines is not a captured output.
    """
    captured = []
    try:
        # Not by splitlines, because an output may contain U+2028.
        lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CaptureError(f"the captured outputs in {file} can't be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            raw = json.loads(line)
            probes = tuple(Probe(**probe) for probe in raw.pop("probes"))
            rewritten = tuple(raw.pop("rewritten"))
            captured.append(Captured(probes=probes, rewritten=rewritten, **raw))
        except (ValueError, KeyError, TypeError, AttributeError, ClaraError) as error:
            raise CaptureError(f"{file}:{number}: not a captured output: {error}") from error
    return captured
