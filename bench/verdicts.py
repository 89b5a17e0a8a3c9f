"""Rows of a table that says what holds: run check by check, printed as they come, kept as JSON."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from clara_mlx import machine

# Columns of a printed row.
_WHAT = 62
_LIMIT = 34


@dataclass
class Verdict:
    """One row: what was tried, what must come of it, what came of it."""

    what: str
    limit: str
    measured: str
    holds: bool
    seconds: float = 0.0  # that the row took


#: Given an empty folder, tries something, and says row by row what came of it.
Check = Callable[[Path], Iterator[Verdict]]


def judge(checks: Iterable[Check]) -> list[Verdict]:
    """Run checks one after the other and print their rows; a check that breaks does not hold."""
    verdicts = []
    for check in checks:
        begun = time.monotonic()
        for verdict in _rows(check):
            now = time.monotonic()
            verdict.seconds = round(now - begun, 1)
            begun = now
            verdicts.append(verdict)
            word = "holds" if verdict.holds else "FALLS SHORT"
            print(
                f"{word:11} {verdict.what:{_WHAT}} {verdict.limit:{_LIMIT}} {verdict.measured}"
                f" [{verdict.seconds:.1f} s]",
                flush=True,
            )
    return verdicts


def _rows(check: Check) -> Iterator[Verdict]:
    what = (check.__doc__ or check.__name__).partition("\n")[0].rstrip(".")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            yield from check(Path(folder))
        except Exception as error:  # the other checks go on
            yield Verdict(what, "it can be tried", f"{type(error).__name__}: {error}"[:300], False)


def conclude(verdicts: list[Verdict], out: Path | None) -> int:
    """Write the rows and the machine to a file; gives the exit status of the program."""
    short = [verdict for verdict in verdicts if not verdict.holds]
    print(f"{len(verdicts) - len(short)} of {len(verdicts)} hold", flush=True)
    if out:
        result = {
            "machine": machine.describe() | {"load_average": os.getloadavg()},
            "rows": [asdict(verdict) for verdict in verdicts],
        }
        out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if short or not verdicts else 0
