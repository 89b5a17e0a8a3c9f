"""Judges patterns, and keeps the verdicts in a file that the tests read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pattern_check import growth, recheck
from pattern_check.collect import ROOT, Pattern
from pattern_check.javascript import exact_form, failing_forms

FILE = ROOT / "tests" / "scripts" / "patterns.json"


@dataclass(frozen=True)
class Verdict:
    """Whether a pattern is linear, by what that was found, and the slowest text of those tried."""

    is_linear: bool
    proof: str
    measured: str


UNKNOWN = Verdict(False, "not in the file of verdicts: run scripts/patterns.py --write", "")

# Patterns that are asked about at once.
_BATCH = 20


def judge(patterns: Iterable[Pattern]) -> dict[Pattern, Verdict]:
    """Have patterns checked by recheck and measure them.

    Raises:
        recheck.Unavailable: It can't run here.
    """
    patterns = list(patterns)
    found: dict[Pattern, Verdict] = {}
    for first in range(0, len(patterns), _BATCH):
        some = patterns[first : first + _BATCH]
        forms = [
            (one, form) for one in some for form in failing_forms(one.text, one.flags, one.use)
        ]
        failing = recheck.ask([form for _, form in forms])
        doubtful = {
            one for (one, _), answer in zip(forms, failing, strict=True) if not answer.is_proof
        }
        unproved = [one for one in some if one in doubtful]
        exact = recheck.ask([exact_form(one.text, one.flags, one.use) for one in unproved])
        answers = dict(zip(unproved, exact, strict=True))
        for one in some:
            found[one] = _verdict(one, answers.get(one))
        print(f"{len(found)} of {len(patterns)} patterns checked", file=sys.stderr)
    return found


def _verdict(pattern: Pattern, answer: recheck.Answer | None) -> Verdict:
    """The verdict on a pattern: without an answer it is linear even where every attempt fails."""
    slow = growth.slowest(pattern)
    if answer is None:
        proof = "recheck: linear, proved even if every attempt fails"
    elif answer.is_proof:
        proof = "recheck: linear, proved"
    else:
        proof = f"recheck: {answer.status}, {answer.summary} ({answer.checker})"
    is_vulnerable = answer is not None and answer.status == "vulnerable"
    if answer is not None and is_vulnerable:
        proof += f", {answer.attack[:200]}"
    measured = f"{'NOT LINEAR: ' if slow.is_finding else ''}{slow}"
    return Verdict(not is_vulnerable and not slow.is_finding, proof, measured)


def read() -> dict[Pattern, Verdict]:
    """The verdicts in the file."""
    if not FILE.is_file():
        return {}
    return {
        Pattern(one["pattern"], one["flags"], one["use"]): Verdict(
            one["linear"], one["proof"], one["measured"]
        )
        for one in json.loads(FILE.read_text(encoding="utf-8"))["patterns"]
    }


def write(found: Mapping[Pattern, Verdict]) -> None:
    """Write verdicts into the file, sorted."""
    rows = [
        {
            "pattern": pattern.text,
            "flags": pattern.flags,
            "use": pattern.use,
            "linear": verdict.is_linear,
            "proof": verdict.proof,
            "measured": verdict.measured,
        }
        for pattern, verdict in sorted(found.items(), key=lambda item: item[0])
    ]
    written = {"checked by": f"scripts/patterns.py, recheck {recheck.VERSION}", "patterns": rows}
    FILE.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
