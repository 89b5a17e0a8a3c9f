"""Checks that every regular expression of the source takes linear time, on any text.

python scripts/patterns.py                   # all patterns, by recheck and by measuring
python scripts/patterns.py FILE ...          # those of some files
python scripts/patterns.py --pattern P       # one that is not in the source yet
python scripts/patterns.py --write           # all that are not in the file of verdicts, into it
python scripts/patterns.py --new             # all, by recheck those that are not in that file
python scripts/patterns.py --recorded        # without recheck, by the file of verdicts
python scripts/patterns.py --list            # the patterns, without a check

A pattern passes if nothing below says no. The file of verdicts keeps what each said:

1. recheck's automaton proves that even a form of it that always fails is linear;
2. recheck's automaton proves the pattern itself, or, where it has lookarounds or the like that no
   automaton knows, recheck's fuzzer finds nothing; where recheck comes to no end in time, the
   verdict says "unknown" and rests on the third alone;
3. in Python, as the source uses it, its time is measured on units made from the pattern.

tests/scripts/patterns.json keeps the verdicts; a test holds that each pattern of the source is
there. Where node or npm's registry can't be had, this command says so and relies on that file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path

from pattern_check import recheck, verdicts
from pattern_check.collect import ROOT, Pattern, collect

# Patterns that are asked about before what was found is kept.
_AT_ONCE = 20

USES = ("search", "scan", "match", "fullmatch")


def main() -> int:
    """Run the command; the exit status is 1 if a pattern is not linear."""
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="only the patterns of these files")
    parser.add_argument("--pattern", help="only this pattern, in Python's syntax")
    parser.add_argument("--use", choices=USES, default="search", help="how --pattern is used")
    parser.add_argument("--flags", type=int, default=0, help="its flags, such as 8 for MULTILINE")
    parser.add_argument("--write", action="store_true", help="renew the file of verdicts")
    parser.add_argument("--all", action="store_true", help="with --write, ask about all again")
    parser.add_argument("--new", action="store_true", help="ask only about what is not in the file")
    parser.add_argument("--recorded", action="store_true", help="rely on the file of verdicts")
    parser.add_argument("--list", action="store_true", help="show the patterns only")
    given = parser.parse_args()
    if given.pattern is not None:
        patterns = {Pattern(given.pattern, given.flags, given.use): ["given"]}
    else:
        patterns = collect(given.files or None)
    if given.list:
        for pattern, places in patterns.items():
            print(f"{places[0]}: {str(pattern).encode('ascii', 'backslashreplace').decode()}")
        return 0
    known = verdicts.read()
    recorded = {one: known.get(one, verdicts.UNKNOWN) for one in patterns}
    if given.recorded:
        return _report(recorded, patterns)
    wanted = list(patterns)
    if given.new or (given.write and not given.all):
        wanted = [one for one in patterns if one not in known or not known[one].is_linear]
    try:
        if wanted:
            recheck.install()
        found: dict[Pattern, verdicts.Verdict] = {}
        for first in range(0, len(wanted), _AT_ONCE):
            found |= verdicts.judge(wanted[first : first + _AT_ONCE])
            if given.write:  # what was found so far is kept, if this is ended
                _keep(found, known, patterns, given.files)
            if len(wanted) > _AT_ONCE:
                print(f"{len(found)} of {len(wanted)} patterns", file=sys.stderr)
    except recheck.Unavailable as error:
        print(
            f"{error}: relying on {verdicts.FILE.relative_to(ROOT)}, which tests hold to the source"
        )
        return _report(recorded, patterns)
    if given.write and not wanted:
        _keep({}, known, patterns, given.files)
    return _report({**recorded, **found} if given.new else found, patterns)


def _keep(
    found: dict[Pattern, verdicts.Verdict],
    known: dict[Pattern, verdicts.Verdict],
    patterns: Collection[Pattern],
    files: list[Path],
) -> None:
    """Write the verdicts found so far beside the known ones of patterns that are still there."""
    verdicts.write({**{one: known[one] for one in known if files or one in patterns}, **found})


def _report(found: dict[Pattern, verdicts.Verdict], places: dict[Pattern, list[str]]) -> int:
    wrong = [one for one, verdict in found.items() if not verdict.is_linear]
    for one in sorted(wrong, key=lambda one: places[one]):
        shown = f"{', '.join(places[one])}: {one}\n    {found[one].proof}; {found[one].measured}"
        print(shown.encode("ascii", "backslashreplace").decode())
    print(f"{len(found)} patterns checked, {len(wrong)} that are not linear")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
