"""Feeds the gateway with hostile texts, clients and files; says whether each is harmless.

    python bench/hostile.py              everything; about ten minutes
    python bench/hostile.py connections  one group; see --help

The gateway runs as users run it, `clara-mlx serve` in a process of its own. It exits with 1 if a
row falls short of its limit. Results go to bench/results/hostile.json when everything has run.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

from hostile_crowd import (
    a_hostile_neighbour,
    half_open_connections,
    large_bodies,
    trickling_headers,
)
from hostile_files import checkpoints, endless_template, imports, log_beside_a_reader, modes
from hostile_findings import (
    answers_without_end,
    endless_patterns,
    forged_words,
    hanging_at_the_end,
    odd_values,
    walls,
)
from hostile_units import slowest_units
from verdicts import Check, conclude, judge

RESULTS = Path(__file__).parent / "results"

GROUPS: dict[str, list[Check]] = {
    "texts": [endless_patterns],
    "units": [slowest_units],
    "words": [forged_words, walls],
    "values": [odd_values, hanging_at_the_end, answers_without_end],
    "files": [checkpoints, imports, modes, endless_template],
    "connections": [half_open_connections, trickling_headers],
    "bodies": [large_bodies],
    "neighbours": [a_hostile_neighbour],
    "reader": [log_beside_a_reader],
}


def main() -> int:
    """Run the groups that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no group is named {', '.join(sorted(unknown))}")
    # The crowd needs more files than a shell often allows.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most), most))
    names = options.groups or list(GROUPS)
    verdicts = judge(check for name in names for check in GROUPS[name])
    return conclude(verdicts, options.out or (None if options.groups else RESULTS / "hostile.json"))


if __name__ == "__main__":
    raise SystemExit(main())
