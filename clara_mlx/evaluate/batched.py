"""Greedy answers to many prompts at once: mlx-lm's batch generation, reading latents.

`BatchGenerator` takes token ids, not embeddings. Therefore every latent vector gets an id of its
own above the vocabulary, and the network that generates looks such ids up among the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

from clara_mlx.model.clara import Clara
from clara_mlx.model.prompts import DecoderPrompt

GROUP = 256  # prompts whose latents are in memory at the same time
BATCH = 64  # prompts that are generated together


class Reading(NamedTuple):
    """An input of the decoder: a prompt, and latents (k, M, hidden) float32 if it has slots."""

    prompt: DecoderPrompt
    latents: Any


def generate_answers(
    clara: Clara, readings: Sequence[Reading], max_tokens: int
) -> Iterator[tuple[int, str]]:
    """Yield the number and the answer of each reading, in the order in which they finish.

    The tokens are those of `Clara.answer` except for rounding: prompts that are computed together
    are padded, so two tokens with almost equal logits can change places.

    Args:
        clara: The model; used from this thread until the last answer.
        readings: What to read; readings of similar length are generated together.
        max_tokens: Largest number of tokens in an answer, which ends earlier at ``</s>``.

    Raises:
        PromptTooLong: A prompt and its answer exceed the model's window.
    """
    for prompt, _ in readings:
        clara.prompts.check_window(prompt, max_tokens)
    order = sorted(range(len(readings)), key=lambda i: -len(readings[i].prompt.ids))
    for start in range(0, len(order), GROUP):
        group = order[start : start + GROUP]
        for number, ids in _generate(clara, [readings[i] for i in group], max_tokens):
            yield group[number], clara.tokenizer.decode(ids)


def _generate(
    clara: Clara, readings: Sequence[Reading], max_tokens: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield the number and the generated ids of each reading, without ``</s>``.

    What all prompts begin with is computed once. Merging the caches of a batch copies them, so one
    cached prefix serves all prompts.
    """
    network = _VectorsAsTokens(clara)
    prompts = [network.add(reading) for reading in readings]
    shared = _common_prefix(prompts)
    prefix = make_prompt_cache(network)
    if shared:
        network(mx.array([prompts[0][:shared]]), cache=prefix)
        mx.eval([layer.state for layer in prefix])
    generator = BatchGenerator(
        network,
        max_tokens=max_tokens,
        stop_tokens=[[id] for id in clara.config.stop_ids],
        completion_batch_size=BATCH,
        prefill_batch_size=BATCH,
    )
    try:
        numbers = generator.insert(
            [ids[shared:] for ids in prompts], caches=[prefix] * len(prompts) if shared else None
        )
        generated: dict[int, list[int]] = {number: [] for number in numbers}
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    generated[response.uid].append(response.token)
                if response.finish_reason:
                    yield response.uid - numbers[0], generated.pop(response.uid)
    finally:
        generator.close()


def _common_prefix(prompts: list[list[int]]) -> int:
    """Number of tokens that all prompts begin with, leaving each prompt two of its own.

    The generator wants one token to prefill and one to start from.
    """
    first = min(prompts)  # between the first and the last in order lie all others,
    last = max(prompts)  # so what these two share, all share
    longest = min(map(len, prompts)) - 2
    for position in range(longest):
        if first[position] != last[position]:
            return position
    return max(0, longest)


class _VectorsAsTokens(nn.Module):
    """The decoder's network, in which ids from ``vocab_size`` on are vectors that were added."""

    def __init__(self, clara: Clara) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._clara = clara
        self._embed = clara.network.model.embed_tokens
        self._first = clara.config.vocab_size
        self._parts: list[mx.array] = []
        self._count = 0
        self._table: mx.array | None = None

    def add(self, reading: Reading) -> list[int]:
        """Add a reading's vectors; returns its prompt with the vectors' ids in the slots."""
        ids = list(reading.prompt.ids)
        if reading.prompt.slots:
            for vector, position in enumerate(reading.prompt.slots, self._first + self._count):
                ids[position] = vector
            vectors = mx.array(reading.latents)
            self._parts.append(vectors.reshape(-1, vectors.shape[-1]))
            self._count += len(reading.prompt.slots)
            self._table = None
        return ids

    def __call__(self, ids: mx.array, cache: Any = None) -> mx.array:
        """Logits (batch, length, vocab) of ids (batch, length)."""
        with self._clara.lora.use("decoder"):
            return self._clara.network(ids, cache, self._embeddings(ids))

    def _embeddings(self, ids: mx.array) -> mx.array:
        if not self._parts:
            return self._embed(ids)
        if self._table is None:
            self._table = mx.concatenate(self._parts)
        is_vector = ids >= self._first
        embeds = self._embed(mx.where(is_vector, 0, ids))
        vectors = self._table[mx.maximum(ids, self._first) - self._first].astype(embeds.dtype)
        return mx.where(is_vector[..., None], vectors, embeds)

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, for which mlx-lm makes a cache each."""
        return self._clara.network.layers
