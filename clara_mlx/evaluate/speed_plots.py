"""The plots of `clara-mlx bench`; a dashed line is what users ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clara_mlx.evaluate.drawing import BLUE, GREEN, INK, ORANGE, PURPLE, as_svg, new_figure
from clara_mlx.evaluate.verdicts import MOST_CHUNK_SECONDS, MOST_GIGABYTES, MOST_SEARCH_SECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
_WIDTH = 5.0  # of a plot, in inches: two stand side by side
_NEAR = 20  # a goal that is so many times above all figures is told in words


@as_svg
def compress(result: dict[str, Any]) -> Figure:
    """Milliseconds for a chunk over its length, a line for each batch."""
    figure = new_figure(_WIDTH, 3.2)
    panel = figure.subplots()
    rows = result["compress"]
    for number, batch in enumerate(sorted({row["batch"] for row in rows})):
        line = sorted((row["chunk_tokens"], row) for row in rows if row["batch"] == batch)
        places = [tokens for tokens, _ in line]
        heights = [1e3 * row["seconds_per_chunk"] for _, row in line]
        colour = _COLOURS[number % len(_COLOURS)]
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
    """Milliseconds to the first token, a bar for each number of chunks that are read."""
    rows = {_chunks(row["documents"]): row["first_token_seconds"] for row in result["answer"]}
    return _bars({name: 1e3 * seconds for name, seconds in rows.items()}, "ms")


@as_svg
def memory(result: dict[str, Any]) -> Figure:
    """Gigabytes of arrays and of the process."""
    used = result["memory"]
    rows = {
        "arrays, loaded": result["load"]["array_bytes"],
        "arrays, with adapters used here": used["array_bytes_with_adapters"],
        "arrays, at most": used["peak_array_bytes"],
        "the process, at most": used["peak_resident_bytes"],
    }
    gigabytes = {name: number / 1e9 for name, number in rows.items()}
    return _bars(gigabytes, "GB", goal=MOST_GIGABYTES)


@as_svg
def memory_file(found: dict[str, Any]) -> Figure:
    """Median and 95th percentile of what is done with a memory."""
    rows = memory_rows(found)
    bars = {name: 1e3 * row["seconds"] for name, row in rows.items()}
    ends = [1e3 * row["p95_seconds"] for row in rows.values()]
    return _bars(bars, "ms", goal=1e3 * MOST_SEARCH_SECONDS, ends=ends)


def memory_rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was timed of a memory, by what a user would call it."""
    rows = {"remember, durable": found["remember"]}
    rows |= {f"recall, k = 10, {row['mode']}": row for row in found["recall"]}
    rows[f"ask, k = {found['ask']['k']}, {found['ask']['max_tokens']} tokens"] = found["ask"]
    return rows


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
            f"{length:,.3g}",
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


def _chunks(number: int) -> str:
    return f"{number} chunk{'s' if number > 1 else ''}"
