"""What `run.measure` measured as tables, a part each; every figure with its runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clara_mlx.evaluate.tables import Grid
from clara_mlx.speed.grids_of_limits import limit_grids, number


def grids(result: dict[str, Any]) -> Iterator[Grid]:
    """Yield the tables of all parts that were measured, in the order of the report."""
    models = [result, *result["others"]]
    if any(model["load"] for model in models):
        yield _load_grid(models)
    for model in models:
        of = f" ({name_of(model)})" if len(models) > 1 else ""
        if model["compress"]:
            yield _compress_grid(model, of)
        if model["answer"]:
            yield _answer_grid(model, of)
        if model["mlx_lm"]:
            yield _mlx_lm_grid(model, of)
    if result["memory_file"]:
        yield _memory_grid(result["memory_file"])
    if result["retrieval"]:
        yield _retrieval_grid(result["retrieval"])
    if result["gateway"]:
        yield _gateway_grid(result["gateway"])
    for model in models:
        if model["limits"]:
            yield from limit_grids(model, f" ({name_of(model)})" if len(models) > 1 else "")


def name_of(model: dict[str, Any]) -> str:
    """A model's folder and how its weights are stored, for people."""
    return f"{model['model'].rstrip('/').rpartition('/')[2]}, {stored_as(model)}"


def stored_as(model: dict[str, Any]) -> str:
    """How a model's weights are stored: its dtype, its bits, or its mode."""
    scheme = model["quantization"]
    if scheme is None:
        return str(model["stored_dtype"])
    if scheme.get("mode", "affine") != "affine":
        return str(scheme["mode"])
    bits = {part["bits"] for part in (scheme, *scheme.values()) if isinstance(part, dict)}
    return f"{' and '.join(map(str, sorted(bits)))} bits"


def ms(row: dict[str, Any], prefix: str = "") -> tuple[str, str, str]:
    """Median and 95th percentile in milliseconds, and the number of runs."""
    median, p95 = row[f"{prefix}seconds"], row[f"{prefix}p95_seconds"]
    return milliseconds(median), milliseconds(p95), str(row["runs"])


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with as many digits as say something."""
    return number(1e3 * seconds)


def gigabytes(nbytes: float) -> str:
    """Bytes in 10^9 of them."""
    return f"{nbytes / 1e9:,.3f}"


def _load_grid(models: list[dict[str, Any]]) -> Grid:
    rows: list[tuple[str, ...]] = [
        (
            name_of(model),
            *ms(load),
            gigabytes(load["array_bytes"]),
            gigabytes(load["array_bytes_with_adapters"]),
            gigabytes(load["peak_array_bytes"]),
            gigabytes(load["resident_bytes"]),
            gigabytes(load["peak_resident_bytes"]),
        )
        for model in models
        if (load := model["load"])
    ]
    header = ("model", "load, ms", "p95", "runs", "arrays, GB", "with adapters", "arrays, most")
    return Grid("Loading", (*header, "process, GB", "process, most"), rows)


def _compress_grid(model: dict[str, Any], of: str) -> Grid:
    rows: list[tuple[str, ...]] = [
        (
            f"{row['chunk_tokens']}{' *' if row['asked_tokens'] != row['chunk_tokens'] else ''}",
            str(row["batch"]),
            *ms(row),
            milliseconds(row["seconds_per_chunk"]),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['share_of_matmul_peak']:.0%}",
        )
        for row in model["compress"]
    ]
    header = ("chunk tokens", "batch", "ms", "p95", "runs", "ms per chunk", "tokens/s")
    return Grid(f"Compressing{of}", (*header, "of matmul peak"), rows)


def _answer_grid(model: dict[str, Any], of: str) -> Grid:
    rows: list[tuple[str, ...]] = []
    for row in model["answer"]:
        text = row["text"]
        ratio = row.get("text_over_memories")
        rows.append(
            (
                str(row["documents"]),
                f"{row['positions']:,}",
                *_answer_cells(row),
                f"{text['positions']:,}",
                *_answer_cells(text),
                f"{ratio:.1f}" if ratio else "",
            )
        )
    ways = ("positions", "first token, ms", "p95", "tokens/s", "runs")
    text_ways = tuple(f"text: {name}" for name in ways)
    return Grid(f"Answering{of}", ("memories", *ways, *text_ways, "text / memories"), rows)


def _answer_cells(read: dict[str, Any]) -> tuple[str, str, str, str]:
    if "first_token_seconds" not in read:
        return ("too long", "", "", "")
    rate = read["tokens_per_second"]
    first, p95 = read["first_token_seconds"], read["first_token_p95_seconds"]
    return milliseconds(first), milliseconds(p95), f"{rate:,.1f}" if rate else "", str(read["runs"])


def _mlx_lm_grid(model: dict[str, Any], of: str) -> Grid:
    found = model["mlx_lm"]
    rows: list[tuple[str, ...]] = [
        (
            f"{row['batch']} x {row['chunk_tokens']} tokens: encode / prefill, ms",
            *ms(row["clara"])[:2],
            *ms(row["mlx-lm"]),
            f"{row['clara_over_mlx_lm']:.2f}",
        )
        for row in found["prefill"]
    ]
    decode = found["decode"]
    if ratio := decode.get("clara_over_mlx_lm"):
        ours, theirs = decode["clara"], decode["mlx-lm"]
        rows.append(
            (
                f"a token of an answer after {decode['positions']} positions, ms",
                milliseconds(1 / ours["tokens_per_second"]),
                "",
                milliseconds(1 / theirs["tokens_per_second"]),
                "",
                str(theirs["runs"]),
                f"{ratio:.2f}",
            )
        )
    header = ("work", "CLaRa", "p95", "mlx-lm", "p95", "runs", "CLaRa / mlx-lm per token")
    return Grid(f"Beside mlx-lm on the same base{of}", header, rows)


def memory_rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was timed of a memory, by what a user would call it."""
    rows = {"remember, durable": found["remember"]}
    rows |= {f"recall, k = 10, {row['mode']}": row for row in found["recall"]}
    rows[f"ask, k = {found['ask']['k']}, {found['ask']['max_tokens']} tokens"] = found["ask"]
    names = {"text": "remember to recall, by words", "latent": "remember to recall, by meaning"}
    rows |= {names[row["mode"]]: row for row in found["remember_to_recall"]}
    return rows


def _memory_grid(found: dict[str, Any]) -> Grid:
    rows: list[tuple[str, ...]] = [(name, *ms(row)) for name, row in memory_rows(found).items()]
    return Grid("With a memory", ("", "ms", "p95", "runs"), rows)


def _retrieval_grid(found: list[dict[str, Any]]) -> Grid:
    rows: list[tuple[str, ...]] = [(f"{row['chunks']:,}", row["mode"], *ms(row)) for row in found]
    header = ("chunks in the memory", "search", "ms", "p95", "runs")
    return Grid("The ten best, by the size of the memory", header, rows)


def _gateway_grid(found: list[dict[str, Any]]) -> Grid:
    rows: list[tuple[str, ...]] = [
        (
            f"{row['request']}{', streamed' if row['streamed'] else ''}",
            *ms(row["direct"])[:2],
            *ms(row["gateway"])[:2],
            *ms(row["added"]),
        )
        for row in found
    ]
    header = ("request", "direct, ms", "p95", "gateway, ms", "p95", "added, ms", "p95", "runs")
    return Grid("What the gateway adds to a request", header, rows)
