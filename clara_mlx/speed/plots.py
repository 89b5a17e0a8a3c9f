"""The plots of `clara-mlx bench`; a dashed line is what users ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clara_mlx.evaluate.drawing import BLUE, GREEN, INK, ORANGE, PURPLE, as_svg, new_figure
from clara_mlx.evaluate.verdicts import MOST_CHUNK_SECONDS, MOST_GIGABYTES, MOST_SEARCH_SECONDS
from clara_mlx.speed.grids import memory_rows, stored_as
from clara_mlx.speed.grids_of_limits import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
_WIDTH = 5.0  # of a plot, in inches: two stand side by side
_NEAR = 20  # a goal that is so many times above all figures is told in words

# Bits per weight of the Macs' plot.
_BITS = 8


def pictures(result: dict[str, Any]) -> dict[str, str]:
    """The plots of what was measured as SVG texts, by their captions."""
    drawn = {}
    if result["compress"]:
        drawn["Compressing a chunk, by its length and batch"] = compress(result)
    if result["answer"]:
        drawn["The first token of an answer, by what is read"] = answer(result)
    if result["passes"]:
        drawn["Share of this machine's limit that is reached"] = shares(result["passes"])
    if result["retrieval"]:
        drawn["The ten best, by the size of the memory"] = retrieval(result["retrieval"])
    if found := result["memory_file"]:
        drawn["With a memory: median, and the line up to the 95th percentile"] = memory_file(found)
    if result["gateway"]:
        title = "What the gateway adds: median, and the line up to the 95th percentile"
        drawn[title] = gateway(result["gateway"])
    drawn["Memory"] = memory(result)
    return drawn


@as_svg
def compress(result: dict[str, Any]) -> Figure:
    """Milliseconds for a chunk over its length, a line for each batch."""
    figure = new_figure(_WIDTH, 3.2)
    panel = figure.subplots()
    rows = result["compress"]
    for place, batch in enumerate(sorted({row["batch"] for row in rows})):
        line = sorted((row["chunk_tokens"], row) for row in rows if row["batch"] == batch)
        places = [tokens for tokens, _ in line]
        heights = [1e3 * row["seconds_per_chunk"] for _, row in line]
        colour = _COLOURS[place % len(_COLOURS)]
        label = "alone" if batch == 1 else f"{batch} together"
        panel.plot(places, heights, "o-", ms=4, color=colour, label=label)
    panel.set(xlabel="tokens of the chunk", ylabel="ms for each chunk")
    panel.set_xticks(sorted({row["chunk_tokens"] for row in rows}))
    most = 1e3 * max(row["seconds_per_chunk"] for row in rows)
    _draw_goal(panel, 1e3 * MOST_CHUNK_SECONDS, most, "ms", upright=False)
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.2)
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@as_svg
def answer(result: dict[str, Any]) -> Figure:
    """Milliseconds to the first token over the number of documents, as memories and as text."""
    figure = new_figure(_WIDTH, 3.2)
    panel = figure.subplots()
    lines = {
        "memories": [(row["documents"], row) for row in result["answer"]],
        "the same as text": [(row["documents"], row["text"]) for row in result["answer"]],
    }
    for colour, (label, line) in zip(_COLOURS, lines.items(), strict=False):
        read = [(x, 1e3 * row["first_token_seconds"]) for x, row in line if "runs" in row]
        panel.plot(
            [x for x, _ in read], [y for _, y in read], "o-", ms=4, color=colour, label=label
        )
    places = sorted({row["documents"] for row in result["answer"]})
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    panel.minorticks_off()
    panel.set_xticks(places, [str(place) for place in places])
    panel.set(xlabel="documents that are read", ylabel="ms to the first token")
    panel.grid(alpha=0.2)
    panel.legend(frameon=False)
    return figure


@as_svg
def retrieval(rows: list[dict[str, Any]]) -> Figure:
    """Milliseconds of a search over the number of chunks, a line for each way."""
    figure = new_figure(_WIDTH, 3.2)
    panel = figure.subplots()
    for colour, mode in zip(_COLOURS, dict.fromkeys(row["mode"] for row in rows), strict=False):
        line = sorted((row["chunks"], 1e3 * row["seconds"]) for row in rows if row["mode"] == mode)
        panel.plot([x for x, _ in line], [y for _, y in line], "o-", ms=4, color=colour, label=mode)
    places = sorted({row["chunks"] for row in rows})
    panel.set_xscale("log")
    panel.set_xticks(places, [f"{place:,}" for place in places])
    panel.minorticks_off()
    panel.set(xlabel="chunks in the memory", ylabel="ms")
    most = 1e3 * max(row["seconds"] for row in rows)
    _draw_goal(panel, 1e3 * MOST_SEARCH_SECONDS, most, "ms", upright=False)
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.2)
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@as_svg
def shares(passes: list[dict[str, Any]]) -> Figure:
    """Percent of the limit that passes reach, whichever of the two bounds them.

    Drawn are the longest chunks, the question, and what reads memories; the table has them all.
    """
    encoded = [row["pass"] for row in passes if row["pass"].endswith(" tokens")]
    longest = max((name.split(" ")[-2] for name in encoded), key=int, default="")
    drawn = {
        row["pass"]: 100 * row["share_of_limit"]
        for row in passes
        if row["pass"] not in encoded or row["pass"].endswith(f" {longest} tokens")
    }
    read = {name: share for name, share in drawn.items() if not name.endswith(" as text")}
    return _bars(read or drawn, "% of the limit")


@as_svg
def gateway(found: list[dict[str, Any]]) -> Figure:
    """Milliseconds that the gateway adds to a request."""
    names = [f"{row['request']}{', streamed' if row['streamed'] else ''}" for row in found]
    bars = {name: 1e3 * row["added"]["seconds"] for name, row in zip(names, found, strict=True)}
    return _bars(bars, "ms", ends=[1e3 * row["added"]["p95_seconds"] for row in found])


@as_svg
def known_macs(limits: list[dict[str, Any]]) -> Figure:
    """Milliseconds of a full chunk at best on known Macs, with 8 bits per weight."""
    rows = [row for row in limits if row["bits"] == _BITS]
    return _bars(
        {row["mac"]["name"]: 1e3 * row["chunk_seconds"] for row in rows},
        "ms at best, computed",
        goal=1e3 * MOST_CHUNK_SECONDS,
    )


@as_svg
def memory(result: dict[str, Any]) -> Figure:
    """Gigabytes of arrays and of the process."""
    used = result["memory"]
    rows = {
        f"loaded, {stored_as(model)}": model["load"]["array_bytes_with_adapters"]
        for model in (result, *result["others"])
        if model["load"]
    }
    rows |= {
        "arrays, with all adapters": used["array_bytes_with_adapters"],
        "arrays, at most": used["peak_array_bytes"],
        "the process": used["resident_bytes"],
    }
    gigabytes = {name: nbytes / 1e9 for name, nbytes in rows.items()}
    return _bars(gigabytes, "GB", goal=MOST_GIGABYTES)


@as_svg
def memory_file(found: dict[str, Any]) -> Figure:
    """Median and 95th percentile of what is done with a memory."""
    rows = memory_rows(found)
    bars = {name: 1e3 * row["seconds"] for name, row in rows.items()}
    ends = [1e3 * row["p95_seconds"] for row in rows.values()]
    return _bars(bars, "ms", goal=1e3 * MOST_SEARCH_SECONDS, ends=ends)


def _bars(
    rows: dict[str, float], unit: str, *, goal: float | None = None, ends: list[float] | None = None
) -> Figure:
    """Horizontal bars with their figures, the first on top, and a line up to each end."""
    figure = new_figure(_WIDTH, 0.9 + 0.32 * len(rows))
    panel = figure.subplots()
    panel.barh(range(len(rows)), list(rows.values()), height=0.6, color=BLUE, alpha=0.8)
    for place, length in enumerate(rows.values()):
        end = length
        if ends is not None:
            end = max(length, ends[place])
            panel.plot([length, end], [place] * 2, lw=1, color=INK)
        panel.annotate(
            number(length),
            (end, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    panel.set_yticks(range(len(rows)), list(rows))
    panel.invert_yaxis()
    most = max([*rows.values(), *(ends or [])])
    panel.set(xlabel=unit, xlim=(0, 1.15 * most))
    if goal is not None:
        _draw_goal(panel, goal, most, unit, upright=True)
    return figure


def _draw_goal(panel: Axes, goal: float, most: float, unit: str, *, upright: bool) -> None:
    """What users ask for as a dashed line; in words where the line would dwarf the figures."""
    if goal > _NEAR * most:
        panel.set_title(f"far below the goal of {goal:g} {unit}", fontsize="medium", loc="left")
        return
    draw = panel.axvline if upright else panel.axhline
    draw(goal, ls="--", lw=1, color=INK)
    panel.set_title(f"dashed: the goal of {goal:g} {unit}", fontsize="medium", loc="left")
    if upright:
        panel.set_xlim(0, 1.15 * max(goal, most))
