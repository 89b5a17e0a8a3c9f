"""A memory with a model: from `remember` to `recall` and `ask`, as a program calls them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clara_mlx.evaluate.sets import generate_set
from clara_mlx.memory.asking import Answer
from clara_mlx.memory.memory import Memory
from clara_mlx.model.clara import Clara
from clara_mlx.speed.sampling import Act, seconds_of, spread
from clara_mlx.store.results import Hit

# Seed of the outputs that are remembered.
_SEED = 0

# Tokens of an answer; most answers are short.
_ANSWER_TOKENS = 16

# Questions that are recalled and asked, and outputs that are timed from remember to recall.
_QUESTIONS = 20


def measure_memory(clara: Clara, outputs: int) -> dict[str, Any]:
    """Remember generated outputs in a new memory, and time what follows; times are in seconds.

    Args:
        clara: The model.
        outputs: Number of outputs to remember.

    Returns:
        A dict ready for JSON: remember (each durable), compress (until all is compressed), recall
        by mode (k = 10), ask (k = 5), and remember_to_recall: from the call of `remember` until a
        recall has returned, by words at once, by meaning after the compression. Each has a median
        and the 95th percentile.
    """
    drawn = [
        output for output in generate_set("held-out", _SEED, per_tool=4).outputs if output.probes
    ]
    chosen = [drawn[i % len(drawn)] for i in range(outputs)]
    asked = [output.probes[0].question for output in chosen[:_QUESTIONS]]
    with (
        tempfile.TemporaryDirectory(prefix="clara-mlx-bench-") as folder,
        Memory.open(Path(folder) / "memory.db", clara, compress=False) as memory,
    ):
        texts = iter(f"{number}\n{output.text}" for number, output in enumerate(chosen))
        remember = [seconds_of(lambda: memory.remember(next(texts))) for _ in chosen]
        flush = seconds_of(memory.recompress)
        status = memory.status()
        memory.recall(asked[0])  # the first measures what unrelated questions score
        recall = [
            {"mode": mode, **spread([seconds_of(_recall(memory, text, mode)) for text in asked])}
            for mode in ("hybrid", "latent", "text")
        ]
        ask = [seconds_of(_ask(memory, text)) for text in asked]
        new = [f"again {number}\n{output.text}" for number, output in enumerate(chosen)]
        ways = _remember_to_recall(Path(folder) / "again.db", clara, new[:_QUESTIONS], asked)
    return {
        "outputs": outputs,
        "chunks": status.chunks,
        "remember": spread(remember),
        "compress": {"seconds": flush, "seconds_per_chunk": flush / max(status.chunks, 1)},
        "recall": recall,
        "ask": {"k": 5, "max_tokens": _ANSWER_TOKENS, **spread(ask)},
        "remember_to_recall": ways,
    }


def _remember_to_recall(
    path: Path, clara: Clara, texts: Sequence[str], asked: Sequence[str]
) -> list[dict[str, Any]]:
    """Seconds from a text to its being found, of each text alone, in a memory as it is in use."""
    taken: dict[str, list[float]] = {"text": [], "latent": []}
    with Memory.open(path, clara) as memory:
        memory.remember("the first text, after which the model's thread is warm")
        memory.flush()
        memory.recall(asked[0])
        for text, question in zip(texts, asked, strict=True):

            def remember(text: str = text) -> None:
                memory.remember(text)

            remembered = seconds_of(remember)
            by_words = seconds_of(_recall(memory, question, "text"))
            compressed = seconds_of(memory.flush)
            by_meaning = seconds_of(_recall(memory, question, "latent"))
            taken["text"].append(remembered + by_words)
            # It was compressed while the words were searched, too.
            taken["latent"].append(remembered + by_words + compressed + by_meaning)
    return [{"mode": mode, **spread(seconds)} for mode, seconds in taken.items()]


def _recall(memory: Memory, text: str, mode: Any) -> Callable[[], list[Hit]]:
    return lambda: memory.recall(text, 10, mode=mode)


def _ask(memory: Memory, text: str) -> Act:
    def ask() -> Answer:
        return memory.ask(text, max_tokens=_ANSWER_TOKENS)

    return ask
