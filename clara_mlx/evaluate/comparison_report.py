"""A comparison of compressors as one table, one plot, JSON, Markdown and an HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clara_mlx.evaluate import plots
from clara_mlx.evaluate.comparison import FORMAT
from clara_mlx.evaluate.drawing import alone
from clara_mlx.evaluate.report import printable, read_json, render
from clara_mlx.evaluate.tables import Grid, percent
from clara_mlx.store.atomic import write_text

#: The part of a JSON file that makes it a comparison.
PART = "compressors"

#: The budget of a compressor that keeps to none.
NO_BUDGET = "none"

#: The names of the files, without their endings.
STEM = "compressors"


def write(report: dict[str, Any], folder: Path, *, html: bool) -> list[Path]:
    """Write the JSON file and, with ``html``, the page and the plot; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{STEM}.json": json.dumps(report, indent=1) + "\n"}
    if html:
        files[folder / f"{STEM}.html"] = page(report)
        files[folder / f"{STEM}.svg"] = alone(plots.retention_by_rate(printable(report)))
    for file, text in files.items():
        write_text(file, text)
    return list(files)


def is_comparison(file: Path) -> bool:
    """Whether a file looks like one that `write` wrote."""
    try:
        return PART in json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def read(file: Path) -> dict[str, Any]:
    """Read a comparison that `write` wrote; errors are those of `report.read`."""
    return read_json(file, PART, FORMAT)


def page(report: dict[str, Any]) -> str:
    """The whole comparison as one HTML page; every text in it is escaped by the template."""
    from markupsafe import Markup

    report = printable(report)
    parts = ("machine", "libraries", "extent", "sets")
    return render(
        "compressors.html.jinja",
        report=report,
        grids=grids(report),
        plot=Markup(plots.retention_by_rate(report)),
        provenance=json.dumps({part: report[part] for part in parts}, indent=1),
    )


def grids(report: dict[str, Any]) -> list[Grid]:
    """The tables: what is kept, and what it costs."""
    kept = _kept_grid(report)
    return [*([kept] if kept.rows else []), _cost_grid(report)]


def to_markdown(report: dict[str, Any]) -> str:
    """The tables and what they were measured with."""
    machine = report["machine"]
    source = (
        f"clara-mlx {report['clara_mlx']}, {machine['device']} of {machine['processor']}, "
        f"{machine['date']}."
    )
    return "\n\n".join([*(grid.to_markdown() for grid in grids(report)), source]) + "\n"


def _kept_grid(report: dict[str, Any]) -> Grid:
    sets = report["sets"]
    rows = [
        (who, budget, f"{rate:.1f}" if rate else "", *(_cell(shares, name) for name in sets))
        for who, budget, rate, shares in _kept_rows(report)
    ]
    titles = (_set_title(name, described) for name, described in sets.items())
    header = ("what stands there, or is answered", "budget", "rate", *titles)
    return Grid("Facts kept: % of the questions with one place (95% interval)", header, rows)


def _set_title(name: str, described: dict[str, Any]) -> str:
    return f"{name}, {described['clear']:,} of {described['questions']:,} questions"


def _cell(shares: dict[str, Any], name: str) -> str:
    share = shares[name]["clear"]
    return percent(share) if share else ""


_Row = tuple[str, str, float, dict[str, Any]]  # who, budget, rate or 0, shares by set


def _kept_rows(report: dict[str, Any]) -> Iterator[_Row]:
    """Yield the rows: the positions of each latent compressor, then the reasoner's tokens."""
    trained = [each for each in report[PART] if each["trained"]]
    textual = [each for each in trained if each["kind"] == "textual"]
    for each in trained:
        if each["kind"] == "latent":
            yield from _position_rows(each)
    for each in textual:
        if _has_no_budget(each):
            row = each["in_place"][0]
            yield each["label"], NO_BUDGET, row["rate"]["all"], row["kept"]
    for number, rate in enumerate(report["extent"]["rates"]):
        for each in textual:
            if not _has_no_budget(each):
                row = each["in_place"][number]
                yield from _textual_rows(each["label"], f"1/{rate:g} of the tokens", each, row)


def _position_rows(each: dict[str, Any]) -> Iterator[_Row]:
    """A latent compressor's answers, and what the others keep in as many positions."""
    label, (own,) = each["label"], each["in_place"]
    budget, rate = f"positions of {label}", own["rate"]["all"]
    yield f"{label}: its answer", budget, rate, own["kept"]
    for way, asked in each["asked"].items():
        yield f"{label}: {way}, of that output", "one call away", 0, asked["kept"]
    for rival in each["at_its_positions"]:
        if _exceeds(rival):
            continue
        yield from _textual_rows(rival["name"], budget, rival, rival)
        if "read" in rival:
            who = f"{rival['name']}{_asked(rival)}, read by {label}"
            yield who, budget, rival["rate"]["all"], rival["read"]


def _textual_rows(
    label: str, budget: str, each: dict[str, Any], row: dict[str, Any]
) -> Iterator[_Row]:
    yield label, budget, row["rate"]["all"], row["kept"]
    if each["uses_question"]:
        yield label + _asked(each), budget, row["rate"]["all"], row["asked"]


def _asked(each: dict[str, Any]) -> str:
    return ", asked" if each["uses_question"] else ""


def _has_no_budget(each: dict[str, Any]) -> bool:
    return all(_exceeds(row) for row in each["in_place"])


def _exceeds(row: dict[str, Any]) -> bool:
    """Whether every text exceeds its budget, as those of a compressor that knows none do."""
    return row["over_budget"] == row["shorten"]["runs"]


def _cost_grid(report: dict[str, Any]) -> Grid:
    header = (
        *("compressor", "load, s", "1,000 tokens, ms", "an output, ms (p50 / p95)"),
        *("a question, ms (p50 / p95)", "resident, MB (before / most)", "arrays, MB (most)"),
        *("stored, bytes for each of text", "over its budget"),
    )
    return Grid("What it costs", header, [_cost_row(each) for each in report[PART]])


def _cost_row(each: dict[str, Any]) -> tuple[str, ...]:
    compress, memory, row = each["compress"], each["memory"], each["in_place"][-1]
    question = row.get("answer", row.get("shorten_asked", {}))
    arrays = memory.get("peak_array_bytes")
    over = sum(one.get("over_budget", 0) for one in each["in_place"])
    mark = "" if each["trained"] else " (random weights: mechanics only)"
    return (
        each["label"] + mark,
        f"{each['load_seconds']:.2f}",
        f"{compress['ms_per_1000_tokens']:.1f}" if "ms_per_1000_tokens" in compress else "",
        _spread(compress),
        _spread(question),
        f"{memory['resident_before_bytes'] / 1e6:.0f} / {memory['peak_resident_bytes'] / 1e6:.0f}",
        f"{arrays / 1e6:.0f}" if arrays else "",
        _stored(each),
        f"{over:,}",
    )


def _stored(each: dict[str, Any]) -> str:
    """Bytes beside each of the text: of a memory, or of the texts that are left at each rate."""
    if each["kind"] == "latent":
        return f"{each['stored_bytes_per_text_byte']:.2f}"
    left = [f"{row['bytes_left']:.2f}" for row in each["in_place"]]
    return " to ".join(dict.fromkeys((left[0], left[-1])))


def _spread(timed: dict[str, Any]) -> str:
    return f"{timed['ms_p50']:.1f} / {timed['ms_p95']:.1f}" if timed.get("runs") else ""
