"""Time to the first token: what is compared is the same documents, read by the same decoder."""

from __future__ import annotations

from typing import Any

import pytest

from clara_mlx.evaluate import first_token
from clara_mlx.model.decoder import Decoder


def test_rows_say_what_was_read(clara: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = clara("c16", "e2e")
    read: list[tuple[int, int]] = []
    stream = Decoder.stream

    def count(decoder: Decoder, prompt: Any, latents: Any, *rest: Any) -> Any:
        read.append((len(prompt.ids), len(prompt.slots)))
        return stream(decoder, prompt, latents, *rest)

    monkeypatch.setattr(Decoder, "stream", count)
    said: list[tuple[Any, ...]] = []
    one, three = first_token.measure_first_tokens(
        model, [1, 3], repeats=2, progress=lambda *about: said.append(about)
    )
    per_memory = model.config.memory_tokens + 1  # with <SEP>
    assert three["positions"] - one["positions"] == 2 * per_memory
    per_text = (three["text_positions"] - one["text_positions"]) / 2
    assert model.chunk_tokens * 0.8 < per_text <= model.chunk_tokens
    for row in (one, three):
        assert len(row["all_seconds"]) == len(row["all_text_seconds"]) == 2
        assert row["times_shorter"] == row["text_seconds"] / row["seconds"]
    # In turns, the first of each not counted.
    slots = [n for _, n in read]
    assert slots[:6] == [model.config.memory_tokens, 0] * 3
    assert [about[:2] for about in said] == [(1, 2), (2, 2)]


def test_a_text_that_does_not_fit_is_left_out(clara: Any) -> None:
    model = clara("c16", "e2e")
    number = 5 * model.config.window // model.chunk_tokens // 4
    (row,) = first_token.measure_first_tokens(model, [number], repeats=1)
    assert row["text_positions"] > model.config.window > row["positions"]
    assert row["text_seconds"] is row["all_text_seconds"] is row["times_shorter"] is None
    assert row["seconds"] > 0
