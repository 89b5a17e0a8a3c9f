"""Memory and latency of a model folder on this machine (``clara-mlx bench``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx

from clara_mlx import machine
from clara_mlx.errors import ClaraError, Progress
from clara_mlx.evaluate import verdicts
from clara_mlx.evaluate.memory_speed import measure_memory
from clara_mlx.model import chunking
from clara_mlx.model.clara import Clara, load
from clara_mlx.model.lora import AdaptedLinear, dims

_QUESTION = "Which test failed, and on which line?"

# Varied enough that every tokenizer splits it like tool output; repeated as needed.
_TEXT = "".join(
    f"tests/test_{name}.py::test_case_{i} FAILED [{i}%] line {37 * i}: expected {i}, got {i + 1}\n"
    for i, name in enumerate(("io", "parser", "server", "cache", "network", "config"), 1)
)


def measure(
    path: str | Path,
    *,
    lengths: list[int],
    batches: list[int],
    repeats: int,
    answer_tokens: int,
    outputs: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model folder; times are in seconds, and every figure is a median.

    Args:
        path: The model folder, or a hub id.
        lengths: Chunk lengths in tokens; lengths that exceed the model's chunks are left out.
        batches: Numbers of chunks that are compressed together.
        repeats: Number of timings behind each median.
        answer_tokens: Largest number of tokens to generate.
        outputs: Number of outputs to remember, recall and ask about; 0 leaves the memory out.
        progress: Called after each figure.

    Returns:
        A dict ready for JSON with the machine, load, compress (by chunk tokens and batch), query,
        answer (by documents), the largest memory used, the memory file if there are outputs, and
        the verdicts.
    """
    mx.reset_peak_memory()
    started = time.perf_counter()
    clara = load(path)
    loaded = {"seconds": time.perf_counter() - started, "array_bytes": mx.get_active_memory()}
    limit = clara.config.doc_max_length
    too_long = [length for length in lengths if length > limit]
    lengths = [length for length in lengths if length <= limit]
    if not lengths:
        raise ClaraError(f"no length fits into a chunk, which holds {limit} tokens in this model")
    total = len(lengths) * len(batches) + 4 + bool(outputs)
    done = 0

    def tick(what: str) -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total, what)

    tick("load")
    dtype = clara.network.model.embed_tokens.rows.dtype
    peak_flops = machine.matmul_flops(dtype)
    compress = []
    for length in lengths:
        for batch in batches:
            compress.append(_time_compress(clara, length, batch, repeats, peak_flops))
            tick(f"compress {length} tokens x {batch}")
    query = _time_repeats(lambda: mx.eval(clara.encode_query(_QUESTION)), repeats)
    tick("query")
    latents = clara.encode([_text_of(clara, lengths[-1])[0]])
    answers = []
    for documents in (1, 5):
        read = mx.repeat(latents, documents, 0)
        answers.append(_time_answers(clara, read, answer_tokens, repeats))
        tick(f"answer from {documents}")
    memory_file = None
    if outputs:
        memory_file = measure_memory(clara, outputs)
        tick("memory")
    result = {
        "model": str(path),
        "fingerprint": clara.fingerprint,
        "machine": machine.describe(),
        "compute_dtype": str(dtype).removeprefix("mlx.core."),
        "matmul_flops": peak_flops,
        "repeats": repeats,
        "load": loaded,
        "compress": compress,
        "left_out_lengths": too_long,
        "doc_max_length": limit,
        "query": {"seconds": median(query), "all_seconds": query},
        "answer": answers,
        "memory": {
            "array_bytes_with_adapters": mx.get_active_memory(),
            "peak_array_bytes": mx.get_peak_memory(),
            "peak_resident_bytes": machine.peak_resident_bytes(),
        },
        "memory_file": memory_file,
    }
    return result | {"verdicts": [asdict(verdict) for verdict in verdicts.of_bench(result)]}


def _time_compress(
    clara: Clara, length: int, batch: int, repeats: int, peak_flops: float
) -> dict[str, Any]:
    """Time the encoding of a batch of chunks, also as a share of the machine's matmul peak."""
    text, tokens = _text_of(clara, length)
    times = _time_repeats(lambda: mx.eval(clara.encode([text] * batch)), repeats)
    seconds = median(times)
    positions = batch * (tokens + 3 + clara.config.memory_tokens)  # 3 layout tokens
    flops = 2 * _matrix_weights(clara) * positions
    return {
        "asked_tokens": length,
        "chunk_tokens": tokens,
        "batch": batch,
        "seconds": seconds,
        "seconds_per_chunk": seconds / batch,
        "tokens_per_second": batch * tokens / seconds,
        "share_of_matmul_peak": flops / seconds / peak_flops,
        "all_seconds": times,
    }


def _time_repeats(work: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each repeat, after one that does not count: it loads adapters and compiles."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def _time_answers(clara: Clara, latents: mx.array, tokens: int, repeats: int) -> dict[str, Any]:
    """Time the first token, and the tokens a second after it."""
    first_tokens = []  # seconds
    rates = []  # tokens a second
    counts = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        stamps = [time.perf_counter() for _ in clara.stream_responses(_QUESTION, latents, tokens)]
        if repeat:  # the first answer only warms up
            first_tokens.append(stamps[0] - start)
            counts.append(len(stamps))
            if len(stamps) > 1:
                rates.append((len(stamps) - 1) / (stamps[-1] - stamps[0]))
    return {
        "documents": latents.shape[0],
        "tokens": median(counts),
        "first_token_seconds": median(first_tokens),
        "tokens_per_second": median(rates) if rates else None,
    }


def _matrix_weights(clara: Clara) -> int:
    """Number of weights that every encoder token is multiplied with: all but the two tables."""
    modules = (module for _, module in clara.network.named_modules())
    return sum(prod(dims(m.linear)) for m in modules if isinstance(m, AdaptedLinear))


def _text_of(clara: Clara, tokens: int) -> tuple[str, int]:
    """A text of nearly, but at most, a number of tokens; and how many tokens it has."""
    text = _TEXT * (1 + tokens // 64)
    chunk = next(chunking.split(text, clara.tokenizer, tokens))
    return text[: chunk.end], chunk.tokens
