"""The report's plots, each as one SVG text, with matplotlib."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.tables import DIMENSIONS, found

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Methods that a breakdown shows, each in its colour; all are in the tables beside it.
_COLOURS = {
    "latents": "#0b6e99",
    "text": "#444444",
    "bm25": "#d9822b",
    "head": "#7b9e3f",
    "tail": "#a05195",
    "nothing": "#bbbbbb",
}
_RECALL = {"latent": "#0b6e99", "text": "#444444", "hybrid": "#d9822b"}
_ROW, _HEAD = 0.28, 1.1  # inches of a row, and of what is above and below all rows


def check() -> None:
    """Find out before a long run whether the plots can be made.

    Raises:
        ClaraError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ClaraError(
            "the report's plots need matplotlib: pip install 'clara-mlx[evaluate]', "
            "or leave the report out with --no-html"
        )


def retention(report: dict[str, Any]) -> str:
    """Exact answers of every method, one panel a set."""
    model, names = report["models"][0]["name"], list(report["sets"])
    methods = [m for m in report["methods"] if found(report, model, names[0], m)][::-1]
    figure = _figure(2.4 + 2.1 * len(names), _HEAD + _ROW * len(methods))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        entries = [found(report, model, name, method) for method in methods]
        shares = [entry["all"]["exact"] for entry in entries if entry]
        colours = [_COLOURS.get(method, _COLOURS["latents"]) for method in methods]
        panel.barh(range(len(methods)), [100 * s["mean"] for s in shares], color=colours, alpha=0.8)
        _bars(panel, range(len(methods)), shares, "#000000")
        panel.set(title=name, xlim=(0, 100), xlabel="% exact")
    panels[0].set_yticks(range(len(methods)), methods)
    return _svg(figure)


def breakdown(report: dict[str, Any], name: str) -> str:
    """One set by each dimension: a panel each, a dot a method."""
    model = report["models"][0]["name"]
    entries = {m: entry for m in _COLOURS if (entry := found(report, model, name, m))}
    any_entry = next(iter(entries.values()))
    rows = [len(any_entry["by"][dimension]) for dimension in DIMENSIONS]
    figure = _figure(9.5, sum(_HEAD + _ROW * count for count in rows))
    heights = [_HEAD + _ROW * count for count in rows]
    panels = figure.subplots(len(DIMENSIONS), 1, height_ratios=heights, squeeze=False)[:, 0]
    for panel, dimension in zip(panels, DIMENSIONS, strict=True):
        groups = list(any_entry["by"][dimension])
        for number, (method, entry) in enumerate(entries.items()):
            shares = [entry["by"][dimension][group]["exact"] for group in groups]
            heights_of = [row + 0.09 * (number - len(entries) / 2) for row in range(len(groups))]
            colour = _COLOURS[method]
            panel.plot([100 * s["mean"] for s in shares], heights_of, "o", ms=4, color=colour)
            _bars(panel, heights_of, shares, colour)
            panel.plot([], [], "o", color=colour, label=method)
        panel.set_yticks(range(len(groups)), groups)
        panel.set(
            title=f"by {DIMENSIONS[dimension]}", xlim=(-2, 102), ylim=(len(groups) - 0.5, -0.5)
        )
        panel.grid(axis="x", alpha=0.3)
    panels[0].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    panels[-1].set_xlabel("% exact, with 95% intervals")
    return _svg(figure)


def recall(report: dict[str, Any]) -> str:
    """Recall over depth for each search, one panel a set."""
    memory = report["memory"]
    depths = memory["depths"]
    names = list(next(iter(memory["recall"].values()))["by"]["set"])
    figure = _figure(1.5 + 2.4 * (len(names) + 1), 3.2)
    panels = figure.subplots(1, len(names) + 1, sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, ["all", *names], strict=True):
        for way, figures in memory["recall"].items():
            share = figures["all"] if name == "all" else figures["by"]["set"][name]
            means = [100 * share[str(depth)]["mean"] for depth in depths]
            panel.plot(depths, means, "o-", ms=4, color=_RECALL[way], label=way)
        panel.set(title=name, xticks=depths, ylim=(0, 102), xlabel="chunks looked at")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("% of queries with the relevant chunk")
    panels[-1].legend(loc="lower right")
    return _svg(figure)


def _bars(panel: Axes, heights: Iterable[float], shares: list[dict[str, Any]], colour: str) -> None:
    """The intervals, where there are any."""
    for height, share in zip(heights, shares, strict=True):
        if share["low"] is not None:
            panel.plot([100 * share["low"], 100 * share["high"]], [height] * 2, lw=1, color=colour)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    """The figure as SVG; equal figures give equal texts."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "clara-mlx", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
