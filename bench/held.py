"""Tries again what has held: requests, files and faults that a hostile world has; row by row.

    python bench/held.py           about six minutes
    python bench/held.py --full    more kills, more clients, a minute of each
    python bench/held.py wire      one group; see --help

Each row runs against the real program, `clara-mlx serve` or `clara-mlx convert` as processes, or
runs the tests that do exactly that. It exits with 1 if something no longer holds. Results go to
bench/results/held.json when everything has run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import held_crowds as crowds
import held_faults as faults
import held_inputs as inputs
import held_wire as wire
from verdicts import Check, conclude, judge

RESULTS = Path(__file__).parent / "results"


def groups(full: bool) -> dict[str, list[Check]]:
    """The checks by group."""
    return {
        "wire": [wire.no_token, wire.tokens, wire.hosts, wire.smuggling, wire.keys],
        "inputs": [
            *(inputs.queries, inputs.odd_json, inputs.bombs, inputs.templates, inputs.imports),
        ],
        "kills": [
            *(faults.killed_workers(full), faults.killed_gateways(full)),
            faults.stopped_with_answers_running,
        ],
        "faults": [
            faults.faulty_upstreams,
            faults.a_flapping_reasoner,
        ],
        "files": [crowds.full_disk, crowds.a_locked_file, crowds.two_gateways],
        "crowds": [crowds.crowd(full), crowds.aborted_clients(full)],
    }


def main() -> int:
    """Run the groups that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(groups(False))}")
    parser.add_argument("--full", action="store_true", help="the sizes of a release")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    checks = groups(options.full)
    if unknown := set(options.groups) - set(checks):
        parser.error(f"no group is named {', '.join(sorted(unknown))}")
    verdicts = judge(check for name in options.groups or checks for check in checks[name])
    return conclude(verdicts, options.out or (None if options.groups else RESULTS / "held.json"))


if __name__ == "__main__":
    raise SystemExit(main())
