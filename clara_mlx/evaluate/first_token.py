"""Time to the first token of an answer: from memory tokens, and from the same documents as text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import mlx.core as mx

from clara_mlx.errors import Progress
from clara_mlx.model import chunking
from clara_mlx.model.clara import Clara
from clara_mlx.model.decoder import Decoder
from clara_mlx.model.prompts import DecoderPrompt

#: Numbers of memories that are measured unless others are given.
MEMORIES = (1, 2, 4, 8, 16, 32, 64)

_QUESTION = "Which test failed, and on which line?"
# Of one line: a text is cut at the ends of its lines where it can be.
_PART = "tests/test_{0}.py::test_case_{0} FAILED [{1}%] line {2}: expected {0}, got {1}; "


def measure_first_tokens(
    clara: Clara,
    memories: Sequence[int] = MEMORIES,
    *,
    repeats: int = 3,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Time the first token over full chunks, as latents and as text, in turns.

    Both are read by the same decoder with the same prompt around them; what all prompts begin with
    has been read before. Neither finding the memories nor compressing them is timed.

    Args:
        clara: The model.
        memories: Numbers of chunks; the text of each has the most tokens that a chunk can have.
        repeats: Number of timings behind each median.
        progress: Called after each number of memories.

    Returns:
        For each number a dict ready for JSON: memories, positions and text_positions of the two
        prompts, seconds, text_seconds (medians), all_seconds, all_text_seconds, and times_shorter,
        their ratio. What is about the text is None if it does not fit the model's window.
    """
    decoder = Decoder(clara.network, clara.lora, clara.tokenizer, clara.config.stop_ids)
    text = "".join(_PART.format(i, i % 100, 37 * i) for i in range(clara.chunk_tokens // 8 + 8))
    chunk = next(chunking.split(text, clara.tokenizer, clara.chunk_tokens))
    ids = clara.tokenizer.encode(text[: chunk.end])
    latents = clara.encode(text[: chunk.end])  # (1, memory_tokens, hidden)
    measured = []
    for number in memories:
        read = mx.repeat(latents, number, axis=0)
        prompts = {
            "seconds": clara.prompts.answer(_QUESTION, number),
            "text_seconds": clara.prompts.answer(_QUESTION, 0, text=ids * number),
        }
        works = {
            name: _first_token(decoder, prompt, read)
            for name, prompt in prompts.items()
            if len(prompt.ids) < clara.config.window
        }
        times = _in_turns(works, repeats)
        medians = {name: median(of) for name, of in times.items()}
        row: dict[str, Any] = {
            "memories": number,
            "positions": len(prompts["seconds"].ids),
            "text_positions": len(prompts["text_seconds"].ids),
        }
        for name in prompts:
            row |= {name: medians.get(name), f"all_{name}": times.get(name)}
        both = len(medians) == len(prompts)
        row["times_shorter"] = medians["text_seconds"] / medians["seconds"] if both else None
        measured.append(row)
        if progress:
            progress(len(measured), len(memories), f"first token over {number} memories")
    return measured


def _first_token(decoder: Decoder, prompt: DecoderPrompt, latents: mx.array) -> Callable[[], None]:
    def read() -> None:
        next(decoder.stream(prompt, latents, 1, {}))

    return read


def _in_turns(works: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each work in turn, after one round that warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            mx.synchronize()  # what was computed ahead is not the other's to wait for
            if turn:
                times[name].append(time.perf_counter() - start)
    return times
