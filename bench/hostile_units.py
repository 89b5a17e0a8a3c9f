"""The slowest 100 kB of a repeated unit, over every public function that takes a text.

The functions, the units and the exceptions are those of tests/test_growth.py, which holds how time
grows as well; the main line is in hostile.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

from verdicts import Verdict

from clara_mlx.memory import Memory

TESTS = Path(__file__).parent.parent / "tests"
sys.path += [str(TESTS / "support"), str(TESTS)]

# Characters of a text.
_SIZE = 100_000

# Units of each kind for each function.
_UNITS = 12


def slowest_units(folder: Path) -> Iterator[Verdict]:
    """The slowest 100 kB of a repeated unit."""
    from fed_entries import entries, modules
    from growth import cpu_seconds, slowness, units

    limits = import_module("test_growth")
    slowest: dict[str, tuple[float, str, str]] = {}
    tried = 0
    with Memory.open(folder / "m.db") as memory:
        for entry in entries():
            limit, _ = limits.SLOWER.get(entry.name, (limits.LONGEST, ""))
            for unit in units(tuple(modules()), _UNITS, _UNITS, entry.name):
                text = (unit * (_SIZE // len(unit) + 1))[:_SIZE]
                prepare = partial(entry.prepare, text, memory)
                seconds = cpu_seconds(prepare)
                if seconds > limit:  # again, in case the machine was busy
                    seconds = cpu_seconds(prepare, 3)
                tried += 1
                name = entry.name if entry.name in limits.SLOWER else "all others"
                slowest[name] = max(slowest.get(name, (0.0, "", "")), (seconds, entry.name, unit))
    busy = slowness()
    for name, (seconds, entry_name, unit) in slowest.items():
        limit, _ = limits.SLOWER.get(name, (limits.LONGEST, ""))
        yield Verdict(
            f"S1 the slowest of {tried:,} texts of 100 kB, {name}",
            f"{1000 * limit:.0f} ms",
            f"{1000 * seconds:.0f} ms, {entry_name} of {unit!r}; this machine is {busy:.1f} times "
            "slower than idle",
            seconds <= limit * busy,
        )
