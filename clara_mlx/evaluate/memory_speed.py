"""Latency of a memory with a model: from `remember` to `recall` and `ask`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from clara_mlx.evaluate.sets import generate_set
from clara_mlx.memory.asking import Answer
from clara_mlx.memory.memory import Memory
from clara_mlx.model.clara import Clara
from clara_mlx.store.results import Hit

# Seed of the outputs that are remembered.
_SEED = 0

# Tokens of an answer; most answers are short.
_ANSWER_TOKENS = 16


def measure_memory(clara: Clara, outputs: int, questions: int = 20) -> dict[str, Any]:
    """Remember generated outputs in a new memory, and time what follows; times are in seconds.

    Args:
        clara: The model.
        outputs: Number of outputs to remember.
        questions: Number of questions to recall and to ask.

    Returns:
        A dict ready for JSON: remember (each durable), flush (until all is compressed), recall by
        mode (k = 10), ask (k = 5), each with a median and the 95th percentile.
    """
    drawn = [
        output for output in generate_set("held-out", _SEED, per_tool=4).outputs if output.probes
    ]
    chosen = [drawn[i % len(drawn)] for i in range(outputs)]
    asked = [output.probes[0].question for output in chosen[:questions]]
    with (
        tempfile.TemporaryDirectory(prefix="clara-mlx-bench-") as folder,
        Memory.open(Path(folder) / "memory.db", clara, compress=False) as memory,
    ):
        texts = iter(f"{number}\n{output.text}" for number, output in enumerate(chosen))
        remember = [_seconds(lambda: memory.remember(next(texts))) for _ in chosen]
        started = time.perf_counter()
        memory.recompress()
        flush = time.perf_counter() - started
        status = memory.status()
        memory.recall(asked[0])  # the first measures what unrelated questions score
        recall = [
            {"mode": mode, **_spread([_seconds(_recall(memory, text, mode)) for text in asked])}
            for mode in ("hybrid", "latent", "text")
        ]
        ask = [_seconds(_ask(memory, text)) for text in asked]
    return {
        "outputs": outputs,
        "chunks": status.chunks,
        "remember": _spread(remember),
        "compress": {"seconds": flush, "seconds_per_chunk": flush / max(status.chunks, 1)},
        "recall": recall,
        "ask": {"k": 5, "max_tokens": _ANSWER_TOKENS, **_spread(ask)},
    }


def _recall(memory: Memory, text: str, mode: Any) -> Callable[[], list[Hit]]:
    return lambda: memory.recall(text, 10, mode=mode)


def _ask(memory: Memory, text: str) -> Callable[[], Answer]:
    return lambda: memory.ask(text, max_tokens=_ANSWER_TOKENS)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _spread(seconds: list[float]) -> dict[str, Any]:
    return {
        "seconds": median(seconds),
        "p95_seconds": float(np.percentile(seconds, 95)),
        "all_seconds": seconds,
    }
