"""This machine's limit, and what known Macs could reach at best, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clara_mlx.evaluate.tables import Grid
from clara_mlx.evaluate.verdicts import MOST_CHUNK_SECONDS, MOST_SEARCH_SECONDS

# Said of a pass whose weights are so few that the memory's rate need not bound it.
_CACHED = " (its weights may lie in a cache)"


def limit_grids(model: dict[str, Any], of: str) -> Iterator[Grid]:
    """Yield rates, bandwidth, and the passes beside their limit."""
    found = model["limits"]
    yield _product_grid(found, of)
    yield _kind_grid(found, of)
    yield _bandwidth_grid(found, of)
    if model["passes"]:
        yield _pass_grid(model["passes"], of)


def number(value: float) -> str:
    """A figure with as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _rate(flops: float) -> str:
    return f"{flops / 1e9:,.1f}"


def _product_grid(found: dict[str, Any], of: str) -> Grid:
    rows: list[tuple[str, ...]] = [
        (
            ", ".join(row["linears"]),
            " x ".join(map(str, row["shape"])),
            row["kind"],
            f"{row['rows']:,}",
            _rate(row["flops"]),
            f"{row['weight_bytes_per_second'] / 1e9:,.1f}",
            str(row["runs"]),
        )
        for row in found["products"]
    ]
    header = ("linears", "shape", "weights", "rows", "GFLOP/s", "GB of weights/s", "runs")
    return Grid(f"Products of the model's own shapes{of}", header, rows)


def _kind_grid(found: dict[str, Any], of: str) -> Grid:
    rows: list[tuple[str, ...]] = [
        (
            row["kind"],
            " x ".join(map(str, row["shape"])),
            f"{row['rows']:,}" if row["rows"] else "impossible",
            _rate(row["flops"]) if row["rows"] else "",
        )
        for row in found["kinds"]
    ]
    header = ("weights", "shape", "rows", "GFLOP/s")
    return Grid(f"The same product by dtype and quantisation{of}", header, rows)


def _bandwidth_grid(found: dict[str, Any], of: str) -> Grid:
    rows: list[tuple[str, ...]] = [
        (
            row["way"],
            f"{row['nbytes'] / 1e6:,.0f}",
            f"{row['bytes_per_second'] / 1e9:,.1f}",
            str(row["runs"]),
        )
        for row in found["bandwidth"]
    ]
    return Grid(f"Memory bandwidth through MLX{of}", ("by", "MB", "GB/s", "runs"), rows)


def _pass_grid(passes: list[dict[str, Any]], of: str) -> Grid:
    rows: list[tuple[str, ...]] = [
        (
            row["pass"],
            number(row["operations"] / 1e9),
            number(row["nbytes"] / 1e6),
            number(1e3 * row["limit_seconds"]),
            row["bound"] + (_CACHED if row["may_be_cached"] and row["bound"] == "memory" else ""),
            number(1e3 * row["seconds"]),
            f"{row['share_of_limit']:.0%}",
        )
        for row in passes
    ]
    header = ("pass", "GFLOP", "MB to read", "at least, ms", "bound by", "measured, ms")
    return Grid(f"Passes beside this machine's limit{of}", (*header, "of the limit"), rows)


def known_macs_grid(limits: list[dict[str, Any]]) -> Grid:
    """What known Macs could reach at best with CLaRa-7B, a row for each Mac.

    Cells of several widths have bfloat16 first, then 8 and 4 bits per weight. What is bound by
    arithmetic is the same for all of them.
    """
    rows: list[tuple[str, ...]] = []
    by_mac: dict[str, list[dict[str, Any]]] = {}
    for row in limits:
        by_mac.setdefault(row["mac"]["name"], []).append(row)
    for name, widths in by_mac.items():
        mac, first = widths[0]["mac"], widths[0]
        rows.append(
            (
                f"{name}, {mac['gpu_cores']} GPU cores",
                f"{mac['matmul_flops'] / 1e12:.3g}",
                f"{mac['bandwidth'] / 1e9:.0f}",
                _beside(first["chunk_seconds"], MOST_CHUNK_SECONDS),
                " / ".join(_beside(row["query_seconds"], MOST_SEARCH_SECONDS) for row in widths),
                f"{1e3 * first['first_token_seconds']:,.0f}",
                f"{1e3 * first['first_token_from_text_seconds']:,.0f}",
                " / ".join(f"{row['tokens_per_second']:.0f}" for row in widths),
            )
        )
    sizes = " / ".join(f"{row['weight_bytes'] / 1e9:.1f}" for row in next(iter(by_mac.values())))
    header = (
        *("Mac", "TFLOP/s", "GB/s", "a full chunk, ms", "a question, ms: bf16 / Q8 / Q4"),
        *("first token of 5 memories, ms", "of the same text, ms", "tokens/s: bf16 / Q8 / Q4"),
    )
    title = (
        "CLaRa-7B on known Macs at best: computed from published rates, not measured "
        f"(bf16 / Q8 / Q4: {sizes} GB; ! is above the goal)"
    )
    return Grid(title, header, rows)


def _beside(seconds: float, goal: float) -> str:
    """Milliseconds, marked where even the best is above the goal."""
    return f"{1e3 * seconds:,.0f}{' !' if seconds > goal else ''}"
