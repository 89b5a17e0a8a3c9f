"""Timing the same work several times: alone, or in turns with what it is compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

#: Work that is timed; what it returns does not matter.
Act = Callable[[], object]


def seconds_of(act: Act) -> float:
    """Seconds that an act takes once."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def sample(act: Act, repeats: int, most_seconds: float) -> list[float]:
    """Seconds of each repeat, after one that does not count: it loads adapters and compiles.

    After ``most_seconds``, the one that does not count included, there are no more repeats; there
    is always one.
    """
    return take_turns({"": act}, repeats, most_seconds)[""]


def take_turns(
    acts: Mapping[str, Act], repeats: int, most_seconds: float
) -> dict[str, list[float]]:
    """`sample` of several acts in turns, so that what else the machine does is the same for all."""
    started = time.perf_counter()
    for act in acts.values():
        act()
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for repeat in range(repeats):
        if repeat and time.perf_counter() - started > most_seconds:
            break
        for name, act in acts.items():
            taken[name].append(seconds_of(act))
    return taken


def spread(seconds: list[float]) -> dict[str, Any]:
    """Median, 95th percentile and number of some times, and the times themselves; for JSON."""
    return {
        "seconds": median(seconds),
        "p95_seconds": float(np.percentile(seconds, 95)),
        "runs": len(seconds),
        "all_seconds": seconds,
    }
