"""What `run.measure` measured: for a terminal, as Markdown, and as one HTML page with plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clara_mlx.evaluate import verdicts
from clara_mlx.evaluate.report import printable, render
from clara_mlx.evaluate.tables import Grid
from clara_mlx.evaluate.verdicts import Verdict
from clara_mlx.plan.known_macs import SOURCES
from clara_mlx.speed import plots
from clara_mlx.speed.grids import grids, name_of, stored_as
from clara_mlx.speed.grids_of_limits import known_macs_grid
from clara_mlx.store.atomic import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType

# Tables that a terminal does not show: the report has them.
_IN_THE_REPORT = ("Products of", "The same product", "Memory bandwidth")


def write(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``bench.json``, ``bench.md`` and ``bench.html``; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "bench.json": json.dumps(result, indent=1) + "\n",
        "bench.md": to_markdown(result),
        "bench.html": page(result),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def to_terminal(result: dict[str, Any]) -> list[RenderableType]:
    """The result as lines and tables, the verdicts last."""
    shown = [grid for grid in grids(result) if not grid.title.startswith(_IN_THE_REPORT)]
    lines: list[RenderableType] = [*facts(result), *(grid.to_rich() for grid in shown)]
    if result["known_macs"]:
        lines.append("What known Macs could reach at best: `--to FOLDER`, or `clara-mlx plan`.")
    lines += notes(result)
    if result["targets"]:
        table = verdicts.table_of(_verdicts(result, "targets"))
        table.title = "Within this machine's limit, whatever the program"
        lines.append(table)
    return [*lines, verdicts.table_of(_verdicts(result))]


def to_markdown(result: dict[str, Any]) -> str:
    """The result for a README, the verdicts last."""
    result = printable(result)
    tables = [grid.to_markdown() for grid in all_grids(result)]
    parts = [*facts(result), *tables, *notes(result)]
    if result["known_macs"]:
        parts += sources()
    if result["targets"]:
        lines = verdicts.to_markdown(_verdicts(result, "targets"))
        title = "**Within this machine's limit, whatever the program**"
        parts.append(lines.replace("**Verdict**", title))
    parts.append(verdicts.to_markdown(_verdicts(result)))
    return "\n\n".join(parts) + "\n"


def page(result: dict[str, Any]) -> str:
    """The result as one HTML page, the verdicts first; every text in it is escaped."""
    from markupsafe import Markup

    result = printable(result)
    parts = (
        *("format", "clara_mlx", "model", "fingerprint", "quantization", "machine", "state"),
        *("compute_dtype", "matmul_flops", "settings"),
    )
    return render(
        "bench.html.jinja",
        folder=Path(__file__).parent,
        result=result,
        name=Path(result["model"]).name,
        facts=facts(result),
        grids=list(grids(result)),
        macs_grid=known_macs_grid(result["known_macs"]) if result["known_macs"] else None,
        sources=sources(),
        notes=notes(result),
        targets=_verdicts(result, "targets") if result["targets"] else [],
        pictures={title: Markup(svg) for title, svg in plots.pictures(result).items()},
        macs_plot=Markup(plots.known_macs(result["known_macs"])) if result["known_macs"] else None,
        provenance=json.dumps({part: result[part] for part in parts}, indent=1),
    )


def all_grids(result: dict[str, Any]) -> list[Grid]:
    """All tables, the one of known Macs last."""
    macs = [known_macs_grid(result["known_macs"])] if result["known_macs"] else []
    return [*grids(result), *macs]


def facts(result: dict[str, Any]) -> list[str]:
    """What is no table: the model and the machine first, then what the figures are worth."""
    used, memory, state = result["machine"], result["memory"], result["state"]
    system = f"macOS {used['macos']}" if used.get("macos") else used["system"]
    accelerators = used["neural_accelerators"]
    lines = [
        f"{result['model']} ({stored_as(result)}, computed in {result['compute_dtype']}) on "
        f"{used['processor']}, {used['cores']} cores, {used['memory_bytes'] / 1e9:.0f} GB, "
        f"{system}, {used['device']}{' ' + used['gpu'] if used.get('gpu') else ''}; "
        f"clara-mlx {result['clara_mlx']}, mlx {used['mlx']}, mlx-lm {used['mlx-lm']}, Python "
        f"{used['python']}{', preloaded ' + used['preloaded'] if used['preloaded'] else ''}",
        f"neural accelerators used: {accelerators['word']} ({accelerators['because']}); power: "
        f"{state['start']['power']}; temperature: {state['start']['thermal']} at the start, "
        f"{state['end']['thermal']} at the end; load average {state['start']['load_average']:.2f} "
        f"and {state['end']['load_average']:.2f}; swap {_swap(state['start'])} and "
        f"{_swap(state['end'])}",
        *(f"Take the figures with care: {one}." for one in result["busy"]),
        f"matmul peak measured here: {result['matmul_flops'] / 1e12:.3g} TFLOP/s "
        f"({result['compute_dtype']} or the model's own weights, whichever is faster)",
        f"while it compressed and answered: {memory['array_bytes_with_adapters'] / 1e9:.3f} GB of "
        f"arrays with all adapters, at most {memory['peak_array_bytes'] / 1e9:.3f} GB; the process "
        f"had {memory['resident_bytes'] / 1e9:.2f} GB resident after it, and at most "
        f"{memory['peak_resident_bytes'] / 1e9:.2f} GB before, the matrices of the limits included",
    ]
    for model in (result, *result["others"]):
        if query := model["query"]:
            lines.append(
                f"encoding a question of {query['tokens']} tokens ({name_of(model)}): "
                f"{1e3 * query['seconds']:.1f} ms, p95 {1e3 * query['p95_seconds']:.1f} ms, "
                f"{query['runs']} runs"
            )
    if found := result["memory_file"]:
        compress = found["compress"]
        lines.append(
            f"{found['outputs']} outputs, {found['chunks']:,} chunks: all compressed after "
            f"{compress['seconds']:.1f} s, {1e3 * compress['seconds_per_chunk']:.1f} ms a chunk"
        )
    if result["settings"]["quick"]:
        lines.append("A quick bench: few runs, to see that all works. Don't compare its figures.")
    return lines


def _swap(state: dict[str, Any]) -> str:
    used = state["swap_used_bytes"]
    return "not known" if used is None else f"{used / 1e9:.1f} GB"


def notes(result: dict[str, Any]) -> list[str]:
    """What was not measured, and why."""
    return [f"Not measured ({one['part']}): {one['because']}" for one in result["not_measured"]]


def sources() -> list[str]:
    """Where the published rates of known Macs come from."""
    return [
        f"{one['what']}: {one['where']}, {one['url']}, read on {one['read']}"
        for one in SOURCES.values()
    ]


def _verdicts(result: dict[str, Any], part: str = "verdicts") -> list[Verdict]:
    return [Verdict(**verdict) for verdict in result[part]]
