"""This machine's own limit: its rates at the model's shapes, and what they allow.

Products are measured through MLX, with matrices of the shapes and the kind that the model has, at
the numbers of rows that its passes have. The best rate found is the machine's; a pass can't be
faster than its operations at that rate, nor than reading its weights at the memory's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from clara_mlx.model.clara import Clara
from clara_mlx.model.encoder import BATCH_TOKENS
from clara_mlx.plan.passes import BaseShape, Work
from clara_mlx.speed.sampling import sample, spread
from clara_mlx.speed.settings import Settings

#: Bytes of the array that is read to measure the memory's bandwidth; a quick bench reads a quarter.
READ_BYTES = 256 << 20

# What other dtypes and quantisations are measured as, beside the model's own.
_KINDS: tuple[dict[str, Any], ...] = (
    {"dtype": "float32"},
    {"dtype": "float16"},
    {"dtype": "bfloat16"},
    {"bits": 8, "group_size": 64, "mode": "affine"},
    {"bits": 4, "group_size": 64, "mode": "affine"},
)

_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}

# Seconds that one product may take here; where it would take longer, it has fewer rows.
_MOST_SECONDS = 1.0

# Weights below this share of what is read for the bandwidth may lie in a cache.
_MAY_BE_CACHED = 1 / 8


def measure_limits(
    clara: Clara,
    own: dict[str, Any],
    base: BaseShape,
    settings: Settings,
    tick: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the rates of products and of the memory.

    Args:
        clara: The model, for its token counts and its compute dtype.
        own: Its base's quantisation as ``config.json`` has it, or its ``dtype``.
        base: The sizes of its base.
        settings: Repeats, and whether to be quick.
        tick: Called after each group of figures.

    Returns:
        ``products`` of the model's own shapes, ``kinds`` of weights at one of its shapes,
        ``bandwidth``, and the best of each: ``flops`` and ``bytes_per_second``.
    """
    activations = clara.network.model.embed_tokens.rows.dtype
    layout = len(clara.prompts.encoder_input([]))
    rows: tuple[int, ...] = (1, 16 + layout, clara.chunk_tokens + layout, BATCH_TOKENS)
    if settings.quick:
        rows = (1, clara.chunk_tokens + layout)
    measured = _products(own, base, activations, rows, settings)
    products = [product for product in measured if product["rows"]]
    tick("products of its own shapes")
    shape = base.linears["mlp.gate_proj"]
    kinds = [
        _product(kind, shape, activations, clara.chunk_tokens + layout, settings) for kind in _KINDS
    ]
    tick("products by dtype")
    bandwidth = list(_bandwidth(READ_BYTES // 4 if settings.quick else READ_BYTES, settings))
    tick("memory bandwidth")
    return {
        "base": asdict(base),
        "products": products,
        "kinds": kinds,
        "bandwidth": bandwidth,
        "flops": max(row["flops"] for row in products),
        "bytes_per_second": max(row["bytes_per_second"] for row in bandwidth),
    }


def _products(
    own: dict[str, Any],
    base: BaseShape,
    activations: mx.Dtype,
    rows: tuple[int, ...],
    settings: Settings,
) -> Iterator[dict[str, Any]]:
    """Yield the model's own products: the seven linears, equal shapes once, and lm_head."""
    names: dict[tuple[int, int], list[str]] = {}
    for name, shape in base.linears.items():
        names.setdefault(shape, []).append(name)
    for shape, linears in names.items():
        kind = own.get(f"model.layers.0.{linears[0]}") or own
        shown = [name.rpartition(".")[2] for name in linears]
        for count in rows:
            yield {"linears": shown, **_product(kind, shape, activations, count, settings)}
    head = own.get("lm_head") or own
    yield {"linears": ["lm_head"], **_product(head, base.head_shape, activations, 1, settings)}


def _product(
    kind: dict[str, Any],
    shape: tuple[int, int],
    activations: mx.Dtype,
    rows: int,
    settings: Settings,
) -> dict[str, Any]:
    """The rate of a linear of this shape (outputs, inputs) with these weights and rows."""
    outputs, inputs = shape
    linear: nn.Module = nn.Linear(inputs, outputs, bias=False)
    dtype = _DTYPES[kind["dtype"]] if "dtype" in kind else activations
    if "bits" in kind:
        if inputs % kind["group_size"]:
            return {"kind": _name(kind), "shape": shape, "rows": 0, "runs": 0, "flops": 0.0}
        mode = kind.get("mode", "affine")
        linear = linear.to_quantized(kind["group_size"], kind["bits"], mode=mode)
    else:
        linear.set_dtype(dtype)
    mx.eval(linear.parameters())

    def run(count: int) -> Callable[[], None]:
        x = mx.random.normal((count, inputs)).astype(dtype)
        mx.eval(x)
        return lambda: mx.eval(linear(x))

    rows = _affordable(run, rows)
    taken = spread(sample(run(rows), settings.repeats, _MOST_SECONDS))
    operations = 2 * outputs * inputs * rows
    nbytes = sum(array.nbytes for array in dict(linear.parameters()).values())
    return {
        "kind": _name(kind),
        "shape": shape,
        "rows": rows,
        **taken,
        "flops": operations / taken["seconds"],
        "weight_bytes_per_second": nbytes / taken["seconds"],
    }


def _affordable(run: Callable[[int], Callable[[], None]], rows: int) -> int:
    """As many rows as asked for, or as many as fit the time, found with fewer of them first."""
    count = 1
    while count < rows:
        act = run(count)
        started = time.perf_counter()
        act()
        if (time.perf_counter() - started) * 8 > _MOST_SECONDS:
            return count
        count *= 8
    return rows


def _name(kind: dict[str, Any]) -> str:
    if "bits" not in kind:
        return str(kind["dtype"])
    affine = kind.get("mode", "affine") == "affine"
    return f"{kind['bits']} bits" if affine else str(kind["mode"])


def _bandwidth(nbytes: int, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the bytes a second that MLX reads, in ways that do little else."""
    side = int((nbytes / 4) ** 0.5)
    matrix = mx.random.normal((side, side))
    vector = mx.random.normal((side,))
    mx.eval(matrix, vector)
    ways: dict[str, tuple[Callable[[], mx.array], int]] = {
        "a product with a vector": (lambda: matrix @ vector, 1),
        "a sum": (lambda: matrix.sum(), 1),
        "a copy": (lambda: matrix + 1, 2),  # reads and writes
    }
    for name, (way, times) in ways.items():
        seconds = sample(lambda way=way: mx.eval(way()), settings.repeats, _MOST_SECONDS)  # type: ignore[misc]
        taken = spread(seconds)
        moved = times * matrix.nbytes
        yield {
            "way": name,
            "nbytes": moved,
            **taken,
            "bytes_per_second": moved / taken["seconds"],
        }


def passes(result: dict[str, Any], clara: Clara, base: BaseShape) -> Iterator[dict[str, Any]]:
    """Yield what was measured of the model's passes beside what this machine allows.

    Args:
        result: What was measured: ``limits``, and of ``compress``, ``query`` and ``answer`` what
            there is.
        clara: The model.
        base: The sizes of its base.
    """
    found = result["limits"]
    flops, bandwidth = found["flops"], found["bytes_per_second"]
    layout, memory_tokens = len(clara.prompts.encoder_input([])), clara.config.memory_tokens

    def beside(name: str, work: Work, seconds: float) -> dict[str, Any]:
        limit = work.limit_seconds(flops, bandwidth)
        return {
            "pass": name,
            **asdict(work),
            "limit_seconds": limit,
            "bound": work.bound(flops, bandwidth),
            "seconds": seconds,
            "share_of_limit": limit / seconds,
            "may_be_cached": work.nbytes < _MAY_BE_CACHED * READ_BYTES,
        }

    for row in result.get("compress") or []:
        lengths = [row["chunk_tokens"] + layout] * row["batch"]
        name = f"encode {row['batch']} x {row['chunk_tokens']} tokens"
        yield beside(name, base.encode(lengths, memory_tokens), row["seconds"])
    if query := result.get("query"):
        work = base.encode([query["tokens"] + layout], memory_tokens)
        yield beside("encode a question", work, query["seconds"])
    for row in result.get("answer") or []:
        words = ("1 memory", "1 document as text")
        if row["documents"] > 1:
            words = (f"{row['documents']} memories", f"{row['documents']} documents as text")
        for what, read in zip(words, (row, row["text"]), strict=True):
            if "first_token_seconds" not in read:
                continue
            positions = read["positions"]
            work = base.prefill(read["positions_read"])
            yield beside(f"first token, {what}", work, read["first_token_seconds"])
            if read["tokens_per_second"]:
                work = base.decode(positions + read["tokens"] // 2)
                name = f"a token of the answer, {what}"
                yield beside(name, work, 1 / read["tokens_per_second"])
