"""Memory and latency of a model folder on this machine (``clara-mlx bench``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from clara_mlx import machine
from clara_mlx.errors import ClaraError
from clara_mlx.model import chunking
from clara_mlx.model.clara import Clara, load
from clara_mlx.model.lora import AdaptedLinear, dims

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Called with (what is measured, figures done, figures in all).
Progress = Callable[[str, int, int], None]

_QUESTION = "Which test failed, and on which line?"

# Varied enough that every tokenizer cuts it like tool output; repeated as needed.
_TEXT = "".join(
    f"tests/test_{name}.py::test_case_{i} FAILED [{i}%] line {37 * i}: expected {i}, got {i + 1}\n"
    for i, name in enumerate(("io", "parser", "server", "cache", "network", "config"), 1)
)


def run(
    path: str | Path,
    *,
    lengths: list[int],
    batches: list[int],
    repeats: int,
    answer_tokens: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model folder; every time is in seconds, every figure the median of ``repeats``.

    Returns a JSON-ready dict: machine, load, compress (by chunk tokens and batch), query, answer
    (by documents), and the largest memory used.
    """
    total = len(lengths) * len(batches) + 4
    done = 0

    def tick(what: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(what, done, total)

    mx.reset_peak_memory()
    started = time.perf_counter()
    clara = load(path)
    loaded = {"seconds": time.perf_counter() - started, "array_bytes": mx.get_active_memory()}
    tick("load")

    dtype = clara.network.model.embed_tokens.rows.dtype
    peak_flops = machine.matmul_flops(dtype)
    weights = _matrix_weights(clara)
    compress = []
    for length in lengths:
        if length > clara.config.doc_max_length:
            continue
        text, tokens = _text(clara, length)
        for batch in batches:
            times = _times(lambda t=text, b=batch: mx.eval(clara.encode([t] * b)), repeats)  # type: ignore[misc]
            seconds = median(times)
            read = batch * (tokens + 3 + clara.config.memory_tokens)  # with layout tokens
            compress.append(
                {
                    "chunk_tokens": tokens,
                    "batch": batch,
                    "seconds": seconds,
                    "seconds_per_chunk": seconds / batch,
                    "tokens_per_second": batch * tokens / seconds,
                    "share_of_matmul_peak": 2 * weights * read / seconds / peak_flops,
                    "all_seconds": times,
                }
            )
            tick(f"compress {tokens} tokens x {batch}")
    if not compress:
        raise ClaraError(
            f"no length in {lengths} fits a chunk of this model ({clara.config.doc_max_length})"
        )

    query = _times(lambda: mx.eval(clara.encode_query(_QUESTION)), repeats)
    tick("query")
    latents = clara.encode([text])
    answers = []
    for documents in (1, 5):
        answers.append(_answer(clara, mx.repeat(latents, documents, 0), answer_tokens, repeats))
        tick(f"answer from {documents}")
    return {
        "model": str(path),
        "fingerprint": clara.fingerprint,
        "machine": machine.describe(),
        "compute_dtype": str(dtype).removeprefix("mlx.core."),
        "matmul_flops": peak_flops,
        "repeats": repeats,
        "load": loaded,
        "compress": compress,
        "query": {"seconds": median(query), "all_seconds": query},
        "answer": answers,
        "memory": {
            "array_bytes_with_adapters": mx.get_active_memory(),
            "peak_array_bytes": mx.get_peak_memory(),
            "peak_resident_bytes": machine.peak_resident_bytes(),
        },
    }


def _times(work: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each repeat, after one that is not counted (adapters load, kernels compile)."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def _answer(clara: Clara, latents: mx.array, tokens: int, repeats: int) -> dict[str, Any]:
    """Time to the first piece of text, and per generated token after it."""
    first, rate, counts = [], [], []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        stamps = [time.perf_counter() for _ in clara.stream_responses(_QUESTION, latents, tokens)]
        if repeat:  # the first one warms up
            first.append(stamps[0] - start)
            counts.append(len(stamps))
            if len(stamps) > 1:
                rate.append((len(stamps) - 1) / (stamps[-1] - stamps[0]))
    return {
        "documents": latents.shape[0],
        "tokens": median(counts),
        "first_token_seconds": median(first),
        "tokens_per_second": median(rate) if rate else None,
    }


def _matrix_weights(clara: Clara) -> int:
    """Weights that an encoder token is multiplied with: all matrices but the two tables."""
    modules = (module for _, module in clara.network.named_modules())
    return sum(prod(dims(m.linear)) for m in modules if isinstance(m, AdaptedLinear))


def _text(clara: Clara, tokens: int) -> tuple[str, int]:
    """A text of at most, and nearly, so many tokens."""
    text = _TEXT * (1 + tokens // 64)
    chunk = next(chunking.split(text, clara.tokenizer, tokens))
    return text[: chunk.end], chunk.tokens


def tables(result: dict[str, Any]) -> list[RenderableType]:
    """The result for people."""
    from rich.table import Table

    about = result["machine"]
    memory = result["memory"]
    compress = Table("chunk tokens", "batch", "ms", "ms per chunk", "tokens/s", "of matmul peak")
    for row in result["compress"]:
        compress.add_row(
            str(row["chunk_tokens"]),
            str(row["batch"]),
            f"{1e3 * row['seconds']:.1f}",
            f"{1e3 * row['seconds_per_chunk']:.1f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['share_of_matmul_peak']:.0%}",
        )
    answer = Table("documents", "first token, ms", "tokens/s")
    for row in result["answer"]:
        rate = row["tokens_per_second"]
        answer.add_row(
            str(row["documents"]),
            f"{1e3 * row['first_token_seconds']:.1f}",
            f"{rate:,.1f}" if rate else "",
        )
    return [
        f"{result['model']} on {about['processor']}, {about['cores']} cores, "
        f"{about['memory_bytes'] / 1e9:.0f} GB, {about['device']}; mlx {about['mlx']}; "
        f"medians of {result['repeats']}",
        f"load {result['load']['seconds']:.2f} s, {result['load']['array_bytes'] / 1e9:.3f} GB of "
        f"arrays; with adapters {memory['array_bytes_with_adapters'] / 1e9:.3f} GB; at most "
        f"{memory['peak_array_bytes'] / 1e9:.3f} GB of arrays, "
        f"{memory['peak_resident_bytes'] / 1e9:.2f} GB resident",
        f"matmul peak measured here: {result['matmul_flops'] / 1e9:,.0f} GFLOP/s "
        f"({result['compute_dtype']})",
        compress,
        f"query encoding: {1e3 * result['query']['seconds']:.1f} ms",
        answer,
    ]
