"""Compressing chunks, by their length and number, and encoding a question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from clara_mlx.model.clara import Clara
from clara_mlx.plan.passes import BaseShape
from clara_mlx.speed.sampling import sample, spread
from clara_mlx.speed.settings import Settings
from clara_mlx.speed.texts import QUESTION, Texts


def measure_compression(
    clara: Clara, settings: Settings, base: BaseShape, peak_flops: float
) -> Iterator[dict[str, Any]]:
    """Yield a row for each length and batch; no two chunks of a batch are equal.

    Args:
        clara: The model.
        settings: The lengths, all of which fit a chunk, the batches and the repeats.
        base: The sizes of its base, by which operations are counted.
        peak_flops: The machine's rate, in operations a second.
    """
    texts = Texts(clara.tokenizer)
    layout = len(clara.prompts.encoder_input([]))  # positions beside the text's
    for length in settings.lengths:
        for batch in settings.batches:
            chosen = [texts.of(length, number) for number in range(batch)]
            chunks, counts = [text for text, _ in chosen], [tokens for _, tokens in chosen]
            taken = spread(_sample_encoding(clara, chunks, settings))
            work = base.encode([tokens + layout for tokens in counts], clara.config.memory_tokens)
            yield {
                "asked_tokens": length,
                "chunk_tokens": max(counts),
                "batch": batch,
                **taken,
                "seconds_per_chunk": taken["seconds"] / batch,
                "tokens_per_second": sum(counts) / taken["seconds"],
                "operations": work.operations,
                "share_of_matmul_peak": work.operations / taken["seconds"] / peak_flops,
            }


def _sample_encoding(clara: Clara, chunks: list[str], settings: Settings) -> list[float]:
    return sample(lambda: mx.eval(clara.encode(chunks)), settings.repeats, settings.most_seconds)


def measure_query(clara: Clara, settings: Settings) -> dict[str, Any]:
    """The time that a question takes to be encoded, as a search does it."""
    taken = sample(
        lambda: mx.eval(clara.encode_query(QUESTION)), settings.repeats, settings.most_seconds
    )
    tokens = len(clara.tokenizer.encode(QUESTION))
    return {"question": QUESTION, "tokens": tokens, **spread(taken)}
