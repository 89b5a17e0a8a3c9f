"""Figures of probes or queries as shares: of all of them, and of each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clara_mlx.evaluate import metrics
from clara_mlx.evaluate.cases import PLACES, THIRDS


def break_down(
    counted: str,
    documents: Sequence[int],
    figures: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Means with intervals over all probes, and by each dimension's groups, ready for JSON.

    Args:
        counted: The name of what is counted: ``probes`` or ``queries``.
        documents: The number of the document that each of n probes is about.
        figures: For each figure an array (n,) with values from 0 to 1.
        groups: For each dimension the group that each of n probes is in.
    """

    def shares(which: list[int]) -> dict[str, Any]:
        chosen = [documents[i] for i in which]
        means = {
            name: metrics.share(chosen, values[which]).to_dict() for name, values in figures.items()
        }
        return {counted: len(which), "documents": len(set(chosen)), **means}

    by = {
        dimension: {
            name: shares([i for i, other in enumerate(names) if other == name])
            for name in in_report_order(dimension, set(names))
        }
        for dimension, names in groups.items()
    }
    return {"all": shares(list(range(len(documents)))), "by": by}


def in_report_order(dimension: str, names: set[str]) -> list[str]:
    """The names of one dimension's groups in the order of a report."""
    orders = {"third": THIRDS, "place": PLACES}
    if dimension in orders:
        return [name for name in orders[dimension] if name in names]
    if dimension == "ratio":
        return sorted(
            names, key=lambda name: int(name.removeprefix("over ").split(" ")[0].rstrip("x"))
        )
    return sorted(names)
