"""The plots of a report, each drawn by matplotlib as one SVG text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from clara_mlx.evaluate.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SAND,
    as_svg,
    new_figure,
)
from clara_mlx.evaluate.tables import DIMENSIONS, find_retention

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The methods that a breakdown shows; the tables beside it have all methods.
_COLOURS = {
    "latents": BLUE,
    "text": GREY,
    "bm25": ORANGE,
    "head": GREEN,
    "tail": PURPLE,
    "nothing": SAND,
}
_SEARCH_COLOURS = {"latent": BLUE, "text": INK, "hybrid": ORANGE}
_ROW = 0.28  # height of a row, in inches
_MARGINS = 1.1  # height above and below all rows together, in inches


@as_svg
def retention(report: dict[str, Any]) -> Figure:
    """Exact answers of every method, with one panel for each set."""
    model, names = report["models"][0]["name"], list(report["sets"])
    methods = [m for m in report["methods"] if find_retention(report, model, names[0], m)][::-1]
    figure = new_figure(2.4 + 2.1 * len(names), _MARGINS + _ROW * len(methods))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        entries = [find_retention(report, model, name, method) for method in methods]
        shares = [entry["all"]["exact"] for entry in entries if entry]
        colours = [_COLOURS.get(method, _COLOURS["latents"]) for method in methods]
        panel.barh(range(len(methods)), [100 * s["mean"] for s in shares], color=colours, alpha=0.8)
        _draw_intervals(panel, range(len(methods)), shares, INK)
        panel.set(title=name, xlim=(0, 100), xlabel="% exact")
    panels[0].set_yticks(range(len(methods)), methods)
    return figure


@as_svg
def breakdown(report: dict[str, Any], name: str) -> Figure:
    """One set broken down: a panel for each dimension, a dot for each method."""
    model = report["models"][0]["name"]
    entries = {m: entry for m in _COLOURS if (entry := find_retention(report, model, name, m))}
    any_entry = next(iter(entries.values()))
    heights = [_MARGINS + _ROW * len(any_entry["by"][dimension]) for dimension in DIMENSIONS]
    figure = new_figure(9.5, sum(heights))
    panels = figure.subplots(len(DIMENSIONS), 1, height_ratios=heights, squeeze=False)[:, 0]
    for panel, dimension in zip(panels, DIMENSIONS, strict=True):
        groups = list(any_entry["by"][dimension])
        for number, (method, entry) in enumerate(entries.items()):
            shares = [entry["by"][dimension][group]["exact"] for group in groups]
            heights_of = [row + 0.09 * (number - len(entries) / 2) for row in range(len(groups))]
            colour = _COLOURS[method]
            panel.plot([100 * s["mean"] for s in shares], heights_of, "o", ms=4, color=colour)
            _draw_intervals(panel, heights_of, shares, colour)
            panel.plot([], [], "o", color=colour, label=method)
        panel.set_yticks(range(len(groups)), groups)
        panel.set(
            title=f"by {DIMENSIONS[dimension]}", xlim=(-2, 102), ylim=(len(groups) - 0.5, -0.5)
        )
        panel.grid(axis="x", alpha=0.3)
    panels[0].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    panels[-1].set_xlabel("% exact, with 95% intervals")
    return figure


@as_svg
def recall(report: dict[str, Any]) -> Figure:
    """Recall over depth for each way to search, with one panel for each set."""
    memory = report["memory"]
    depths = memory["depths"]
    names = list(next(iter(memory["recall"].values()))["by"]["set"])
    figure = new_figure(1.5 + 2.4 * (len(names) + 1), 3.2)
    panels = figure.subplots(1, len(names) + 1, sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, ["all", *names], strict=True):
        for way, figures in memory["recall"].items():
            share = figures["all"] if name == "all" else figures["by"]["set"][name]
            means = [100 * share[str(depth)]["mean"] for depth in depths]
            panel.plot(depths, means, "o-", ms=4, color=_SEARCH_COLOURS[way], label=way)
        panel.set(title=name, xticks=depths, ylim=(0, 102), xlabel="chunks looked at")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("% of queries with the relevant chunk")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


@as_svg
def retention_by_rate(report: dict[str, Any]) -> Figure:
    """Facts kept over the rate, with one panel for each set of a comparison.

    A compressor that makes texts shorter is a line, one that makes vectors a diamond. Filled marks
    are what is kept before anybody asks, empty ones what is given when asked.
    """
    names = list(report["sets"])
    figure = new_figure(2.2 + 2.6 * len(names), 3.6)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    trained = [each for each in report["compressors"] if each["trained"]]
    for panel, name in zip(panels, names, strict=True):
        for number, each in enumerate(trained):
            colour = f"C{number % 10}"
            rates = [row["rate"][name] for row in each["in_place"]]
            mark = "o" if each["kind"] == "textual" else "D"
            for line, shares in _shares_by_rate(each, name):
                if not shares:
                    continue
                means = [100 * share["mean"] for share in shares]
                fill = "full" if line == "-" else "none"
                panel.plot(rates, means, mark + line, ms=4, color=colour, fillstyle=fill)
                if line == "-":
                    _draw_upright_intervals(panel, rates, shares, colour)
            panel.plot([], [], f"{mark}-", ms=4, color=colour, label=each["label"])
        panel.set(title=name, xscale="log", ylim=(-2, 102), xlabel="tokens for each one left")
        panel.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("% of facts kept; empty: asked")
    panels[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _shares_by_rate(each: dict[str, Any], name: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The style of a line, and a compressor's shares on a set at each of its rates."""
    rows = each["in_place"]
    yield "-", [row["kept"][name]["clear"] for row in rows if row["kept"][name]["clear"]]
    if each["kind"] == "textual":
        asked = [row["asked"] for row in rows]
    else:
        asked = [way["kept"] for way in each["asked"].values()][:1]
    yield ":", [shares[name]["clear"] for shares in asked if shares[name]["clear"]]


def _draw_upright_intervals(
    panel: Axes, places: Iterable[float], shares: list[dict[str, Any]], colour: str
) -> None:
    for place, share in zip(places, shares, strict=True):
        if share["low"] is not None:
            panel.plot([place] * 2, [100 * share["low"], 100 * share["high"]], lw=1, color=colour)


def _draw_intervals(
    panel: Axes, heights: Iterable[float], shares: list[dict[str, Any]], colour: str
) -> None:
    for height, share in zip(heights, shares, strict=True):
        if share["low"] is not None:
            panel.plot([100 * share["low"], 100 * share["high"]], [height] * 2, lw=1, color=colour)
