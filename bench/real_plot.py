"""The plot of `real.py`: facts in view against tokens sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_COLOURS = {
    "everything": "#bbbbbb",
    "truncation": "#a05195",
    "masking": "#d9822b",
    "compymac": "#7b9e3f",
    "ours": "#0b6e99",
}
_MARKERS = "osD^v"  # one for each window


def draw(trajectories: dict[str, Any], file: Path) -> str:
    """Draw the methods at each window, and say where, or why not.

    A filled mark is what is in view, an empty one above it what is one memory call away.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no plot was drawn: it needs matplotlib (pip install 'clara-mlx[evaluate]')"
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for number, (window, methods) in enumerate(trajectories.items()):
        marker = _MARKERS[number % len(_MARKERS)]
        for name, each in methods.items():
            colour = _COLOURS.get(name, "#444444")
            x, low, high = each["sent"], each["present"], each["one_call_away"]
            axes.plot([x, x], [low, high], color=colour, linewidth=1)
            axes.plot(x, high, marker, color=colour, fillstyle="none")
            axes.plot(x, low, marker, color=colour, label=f"{name}, {int(window):,} tokens")
    axes.set_xscale("log")
    axes.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    axes.set_xlabel("tokens sent, % of sending everything")
    axes.set_ylabel("needed facts, %: in view (filled), one call away (empty)")
    axes.set_ylim(0, 103)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(file, dpi=120)
    return f"plot: {file}"
