"""The fast encoder pass against the plain one, for batches of any lengths."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx import Clara
from clara_mlx.model.encoder import BATCH_TOKENS, batches, encode_batch

FLOAT32_NOISE = 2e-5  # of the original itself is 1.1e-5 (golden README)

lengths = st.lists(st.integers(0, 64), min_size=1, max_size=9)


def inputs(clara: Clara, lengths: list[int]) -> list[list[int]]:
    """Encoder inputs with these numbers of ordinary text tokens, all different."""
    return [
        clara.prompts.encoder_input([300 + (7 * row + 3 * i) % 300 for i in range(length)])
        for row, length in enumerate(lengths)
    ]


def plain(clara: Clara, ids: list[int]) -> mx.array:
    """mlx-lm's whole forward pass, one unpadded input at a time."""
    with clara.lora.use("encoder"):
        return clara.network.model(mx.array([ids]))[0, -clara.config.memory_tokens :]


@pytest.mark.parametrize("options", [(), ("-q", "8")])
@settings(max_examples=25, deadline=None)
@given(lengths=lengths)
def test_any_batch_gives_what_each_input_gives_alone(
    clara: Any, options: tuple[str, ...], lengths: list[int]
) -> None:
    loaded = clara("c16", "e2e", *options)
    batch = inputs(loaded, lengths)
    with loaded.lora.use("encoder"):
        fast = encode_batch(loaded.network, batch, loaded.config.memory_tokens)
    assert fast.shape == (len(batch), 4, 64)
    for row, ids in enumerate(batch):
        assert mx.abs(fast[row] - plain(loaded, ids)).max().item() < FLOAT32_NOISE


def test_results_come_in_the_order_of_the_texts(clara: Any) -> None:
    loaded = clara("c16", "e2e")
    texts = ["a longer text with several words in it", "b", "", "one more", "b"]
    together = loaded.encode(texts)
    alone = mx.concatenate([loaded.encode(text) for text in texts])
    assert mx.abs(together - alone).max().item() < FLOAT32_NOISE
    assert mx.array_equal(together[1], together[4])


@given(st.lists(st.integers(1, 300), max_size=200), st.booleans())
def test_batches_stay_within_their_tokens(lengths: list[int], padded: bool) -> None:
    found = list(batches(lengths, padded=padded))
    in_order = sorted(range(len(lengths)), key=lengths.__getitem__)
    assert [number for batch in found for number in batch] == in_order
    for batch in found:
        of_batch = [lengths[i] for i in batch]
        tokens = len(batch) * max(of_batch) if padded else sum(of_batch)
        assert tokens <= BATCH_TOKENS or len(batch) == 1


def test_one_evaluation_per_batch(clara: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = clara("c16", "e2e")
    monkeypatch.setattr("clara_mlx.model.encoder.BATCH_TOKENS", 32)
    loaded.encode("warm up")
    evaluated = []
    monkeypatch.setattr(mx, "eval", lambda *arrays: evaluated.append(arrays))
    latents = loaded.encode(["one", "two", "three", "four", "five", "six"])
    monkeypatch.undo()
    assert latents.shape[0] == 6
    assert len(evaluated) > 1
    assert sum(arrays[0].shape[0] for arrays in evaluated) == 6


def test_no_texts(clara: Any) -> None:
    assert clara("c16", "e2e").encode([]).shape == (0, 4, 64)


def test_embedding_rows_for_signed_and_unsigned_ids(clara: Any) -> None:
    """Generation hands over uint32 ids; id - first_id must not wrap around."""
    embedding = clara("c16", "e2e").network.model.embed_tokens
    ids = [0, 5, 642, 643, 649]
    signed, unsigned = embedding(mx.array(ids)), embedding(mx.array(ids, mx.uint32))
    assert mx.array_equal(signed, unsigned)
    assert mx.array_equal(signed[0], embedding.table(mx.array(0)))
