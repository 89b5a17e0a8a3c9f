"""The numbers of a report as tables, for a terminal, for Markdown and for the HTML report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

#: The dimensions that shares are broken down by, and their headings.
DIMENSIONS = {
    "tool": "tool",
    "kind": "answer",
    "ratio": "source tokens per memory token",
    "third": "place of the evidence in its chunk",
    "place": "place of the chunk in its document",
}

_INTERVAL = "% of probes answered exactly (95% interval)"


@dataclass(frozen=True)
class Grid:
    """A table of texts whose first column is aligned to the left, and the others to the right."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def to_rich(self) -> Table:
        """The table for a terminal."""
        from rich.table import Table

        table = Table(title=self.title, title_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """The table for a README."""
        lines = [self.header, tuple("---:" if i else "---" for i in range(len(self.header)))]
        cells = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in lines + self.rows)
        return "\n".join([f"**{self.title}**", "", *(f"| {row} |" for row in cells)])


def percent(estimate: dict[str, Any], sign: str = "") -> str:
    """A share in percent with its interval, such as ``96.2 (95.0 to 97.3)``.

    With ``"+"`` as the sign, a difference of shares in percentage points, such as ``+1.2``.
    """
    mean, low, high = (estimate[name] for name in ("mean", "low", "high"))
    if low is None:
        return f"{100 * mean:{sign}.1f}"
    return f"{100 * mean:{sign}.1f} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def find_retention(
    report: dict[str, Any], model: str, name: str, method: str
) -> dict[str, Any] | None:
    """The retention of a model on a set by a method; None if it was not measured."""
    for entry in report["retention"]:
        if (entry["model"], entry["set"], entry["method"]) == (model, name, method):
            return dict(entry)
    return None


def main_grids(report: dict[str, Any]) -> Iterator[Grid]:
    """Yield the main tables in the order of the report."""
    yield _retention_grid(report)
    yield _difference_grid(report)
    if len(report["models"]) > 1:
        yield _model_grid(report)
    if report["memory"]:
        yield _recall_grid(report)
        yield _answer_grid(report)


def _retention_grid(report: dict[str, Any]) -> Grid:
    model, names = report["models"][0]["name"], list(report["sets"])
    rows = []
    for method in report["methods"]:
        entries = [find_retention(report, model, name, method) for name in names]
        if entries[0] is None:
            continue
        shares = (percent(entry["all"]["exact"]) if entry else "" for entry in entries)
        rows.append((method, f"{entries[0]['positions']:.1f}", *shares))
    probes = (f"{name}, {report['sets'][name]['probes']:,} probes" for name in names)
    header = ("the decoder reads", f"positions ({names[0]})", *probes)
    return Grid(f"Retention of {model}: {_INTERVAL}", header, rows)


def _difference_grid(report: dict[str, Any]) -> Grid:
    first = report["models"][0]["name"]
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    for entry in report["differences"]:
        of, minus = entry["of"], entry["minus"]
        if of["model"] == minus["model"] == first and of["method"].startswith("latents"):
            row = pairs.setdefault((of["method"], minus["method"]), {})
            row[entry["set"]] = percent(entry["exact"], "+")
    names = list(report["sets"])
    rows = [
        (f"{of} minus {minus}", *(row.get(name, "") for name in names))
        for (of, minus), row in pairs.items()
    ]
    title = "Differences on the same probes: percentage points (95% interval)"
    return Grid(title, ("", *names), rows)


def _model_grid(report: dict[str, Any]) -> Grid:
    """Every model's shares by latents and text, with the differences from the first model."""
    first, names = report["models"][0]["name"], list(report["sets"])
    against_first = {
        (entry["set"], entry["of"]["model"], entry["of"]["method"]): percent(entry["exact"], "+")
        for entry in report["differences"]
        if entry["minus"] == {"model": first, "method": entry["of"]["method"]}
    }
    rows = []
    for model in report["models"]:
        for method in ("latents", "text"):
            cells = []
            for name in names:
                entry = find_retention(report, model["name"], name, method)
                cell = percent(entry["all"]["exact"]) if entry else ""
                if difference := against_first.get((name, model["name"], method)):
                    cell += f"; {difference} points"
                cells.append(cell)
            rows.append((f"{model['name']} ({_precision(model)}), {method}", *cells))
    title = f"Models side by side: {_INTERVAL}; points against {first} on the same probes"
    return Grid(title, ("model", *names), rows)


def _precision(model: dict[str, Any]) -> str:
    if model["quantization"] is None:
        return str(model["dtype"])
    if model["quantization"].get("mode", "affine") != "affine":
        return str(model["quantization"]["mode"])
    others = [one for one in model["quantization"].values() if isinstance(one, dict)]
    bits = {one["bits"] for one in (model["quantization"], *others)}
    return f"{' and '.join(map(str, sorted(bits)))} bits"


def _recall_grid(report: dict[str, Any]) -> Grid:
    memory = report["memory"]
    rows = []
    for way, figures in memory["recall"].items():
        groups = {"all": figures["all"], **figures["by"]["set"], **figures["by"]["form"]}
        for name, share in groups.items():
            depths = (percent(share[str(depth)]) for depth in memory["depths"])
            rows.append((f"{way}, {name}", f"{share['queries']:,}", *depths))
    title = f"Recall of the relevant chunk among {memory['chunks']:,}: % of queries (95% interval)"
    return Grid(title, ("search", "queries", *(f"recall@{d}" for d in memory["depths"])), rows)


def _answer_grid(report: dict[str, Any]) -> Grid:
    memory = report["memory"]
    names = list(next(iter(memory["answers"].values()))["by"]["set"])
    rows = []
    for way, figures in memory["answers"].items():
        shares = [percent(figures["by"]["set"][name]["exact"]) for name in names]
        total = figures["all"]
        rows.append((way, percent(total["exact"]), *shares, percent(total["nothing_found"])))
    title = (
        f"Questions to a memory of {memory['chunks']:,} chunks: % answered exactly (95% interval)"
    )
    return Grid(title, ("the decoder reads", "all", *names, "nothing found"), rows)


def breakdown_grid(report: dict[str, Any], name: str, dimension: str) -> Grid:
    """The shares of a set by one of `DIMENSIONS`, for every method of the first model."""
    model = report["models"][0]["name"]
    entries = {
        method: entry
        for method in report["methods"]
        if (entry := find_retention(report, model, name, method)) is not None
    }
    shares = {method: entry["by"][dimension] for method, entry in entries.items()}
    rows = [
        (group, f"{share['probes']:,}", *(percent(of[group]["exact"]) for of in shares.values()))
        for group, share in next(iter(shares.values())).items()
    ]
    title = f"{name}, by {DIMENSIONS[dimension]}: {_INTERVAL}"
    return Grid(title, (DIMENSIONS[dimension], "probes", *shares), rows)
