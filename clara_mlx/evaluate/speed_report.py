"""What `speed.measure` measured: for a terminal, as Markdown, and as one HTML page with plots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clara_mlx.evaluate import speed_plots, verdicts
from clara_mlx.evaluate.report import printable, render
from clara_mlx.evaluate.tables import Grid
from clara_mlx.evaluate.verdicts import Verdict
from clara_mlx.store.atomic import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType


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
    tables = (grid.to_rich() for grid in grids(result))
    notes = notes_on_lengths(result)
    return [*facts(result), *tables, *notes, verdicts.table_of(_verdicts(result))]


def to_markdown(result: dict[str, Any]) -> str:
    """The result for a README, the verdicts last."""
    result = printable(result)
    tables = (grid.to_markdown() for grid in grids(result))
    notes = notes_on_lengths(result)
    parts = [*facts(result), *tables, *notes, verdicts.to_markdown(_verdicts(result))]
    return "\n\n".join(parts) + "\n"


def page(result: dict[str, Any]) -> str:
    """The result as one HTML page, the verdicts first; every text in it is escaped."""
    from markupsafe import Markup

    result = printable(result)
    parts = ("model", "fingerprint", "machine", "compute_dtype", "matmul_flops", "repeats")
    found = result["memory_file"]
    return render(
        "bench.html.jinja",
        result=result,
        name=Path(result["model"]).name,
        facts=facts(result),
        grids=list(grids(result)),
        notes=list(notes_on_lengths(result)),
        compress_plot=Markup(speed_plots.compress(result)),
        answer_plot=Markup(speed_plots.answer(result)),
        memory_plot=Markup(speed_plots.memory(result)),
        memory_file_plot=Markup(speed_plots.memory_file(found)) if found else None,
        provenance=json.dumps({part: result[part] for part in parts}, indent=1),
    )


def facts(result: dict[str, Any]) -> list[str]:
    """What is no table: the model and the machine first, then what was loaded."""
    used, memory = result["machine"], result["memory"]
    lines = [
        f"{result['model']} on {used['processor']}, {used['cores']} cores, "
        f"{used['memory_bytes'] / 1e9:.0f} GB, {used['device']}; mlx {used['mlx']}; "
        f"medians of {result['repeats']}",
        f"load {result['load']['seconds']:.2f} s, {result['load']['array_bytes'] / 1e9:.3f} GB of "
        f"arrays; with adapters {memory['array_bytes_with_adapters'] / 1e9:.3f} GB; at most "
        f"{memory['peak_array_bytes'] / 1e9:.3f} GB of arrays, "
        f"{memory['peak_resident_bytes'] / 1e9:.2f} GB resident",
        f"matmul peak measured here: {result['matmul_flops'] / 1e9:,.0f} GFLOP/s "
        f"({result['compute_dtype']})",
        f"query encoding: {1e3 * result['query']['seconds']:.1f} ms",
    ]
    if found := result["memory_file"]:
        compress = found["compress"]
        lines.append(
            f"{found['outputs']} outputs, {found['chunks']:,} chunks: all compressed after "
            f"{compress['seconds']:.1f} s, {1e3 * compress['seconds_per_chunk']:.1f} ms a chunk"
        )
    return lines


def grids(result: dict[str, Any]) -> Iterator[Grid]:
    """Yield the tables: compressing, answering, and a memory if one was measured."""
    yield _compress_grid(result)
    yield _answer_grid(result)
    if result["memory_file"]:
        yield _memory_grid(result["memory_file"])


def _verdicts(result: dict[str, Any]) -> list[Verdict]:
    return [Verdict(**verdict) for verdict in result["verdicts"]]


def _compress_grid(result: dict[str, Any]) -> Grid:
    header = ("chunk tokens", "batch", "ms", "ms per chunk", "tokens/s", "of matmul peak")
    rows: list[tuple[str, ...]] = [
        (
            f"{row['chunk_tokens']}{' *' if row['asked_tokens'] != row['chunk_tokens'] else ''}",
            str(row["batch"]),
            f"{1e3 * row['seconds']:.1f}",
            f"{1e3 * row['seconds_per_chunk']:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['share_of_matmul_peak']:.0%}",
        )
        for row in result["compress"]
    ]
    return Grid("Compressing", header, rows)


def _answer_grid(result: dict[str, Any]) -> Grid:
    rows: list[tuple[str, ...]] = [
        (
            str(row["documents"]),
            f"{1e3 * row['first_token_seconds']:.1f}",
            f"{row['tokens_per_second']:,.1f}" if row["tokens_per_second"] else "",
        )
        for row in result["answer"]
    ]
    return Grid("Answering", ("documents", "first token, ms", "tokens/s"), rows)


def _memory_grid(found: dict[str, Any]) -> Grid:
    rows: list[tuple[str, ...]] = [
        (name, f"{1e3 * row['seconds']:.1f}", f"{1e3 * row['p95_seconds']:.1f}")
        for name, row in speed_plots.memory_rows(found).items()
    ]
    return Grid("With a memory", ("", "median, ms", "p95, ms"), rows)


def notes_on_lengths(result: dict[str, Any]) -> Iterator[str]:
    """What became of the lengths that were asked for."""
    changed = {
        row["asked_tokens"]: row["chunk_tokens"]
        for row in result["compress"]
        if row["asked_tokens"] != row["chunk_tokens"]
    }
    if changed:
        pairs = ", ".join(f"{there} for {asked}" for asked, there in changed.items())
        yield f"with *: chunks end with lines, as they do in use: {pairs}"
    if result["left_out_lengths"]:
        lengths = ", ".join(map(str, result["left_out_lengths"]))
        yield f"left out, as they exceed this model's chunks: {lengths} tokens"
