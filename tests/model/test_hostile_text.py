"""Hostile and odd text is content, never layout: through the whole of Clara.

What each text does, in words: special-token strings are the characters they are; control characters
and NUL are kept; a lone surrogate is read as U+FFFD and keeps its offset; white space is text; an
empty text has no chunks, but a latent of its own; a long one is split or refused, never cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from hostile_texts import HOSTILE

from clara_mlx import Clara, ClaraError, PromptTooLong, TextTooLong
from clara_mlx.model.tokenizer import TextTokenizer

ROUNDING = 1e-4  # float32, as in the golden README


@pytest.fixture(scope="module")
def model(clara: Callable[..., Clara]) -> Clara:
    return clara("c16", "e2e")


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def hostile(request: Any) -> str:
    return str(request.param)


def close(a: mx.array, b: mx.array) -> bool:
    return a.shape == b.shape and bool(mx.allclose(a, b, rtol=0, atol=ROUNDING))


def refuse(*_: object) -> None:
    raise AssertionError("called")


def test_a_batch_gives_what_each_text_gives_alone(model: Clara, hostile: str) -> None:
    """The reference takes ``<MEM0>`` in a text for a memory token: it raises an error, or gives one
    text's vectors to another."""
    before, after = "the cache service", "flush every socket before the ledger is closed"
    texts = [before, hostile, after, "<MEM0><MEM1><MEM2><MEM3>"]
    together = model.compress_batch(texts)
    for text, compressed in zip(texts, together, strict=True):
        spans = [text[chunk.start : chunk.end] for chunk in compressed.chunks]
        assert "".join(spans) == text
        assert compressed.source_tokens == sum(chunk.tokens for chunk in compressed.chunks) > 0
        assert compressed.latents.shape == (len(spans), 4, 64)
        assert compressed.latents.dtype == mx.float32
        assert mx.isfinite(compressed.latents).all()
        for span, latents in zip(spans[:3], compressed.latents, strict=False):
            assert close(model.encode(span)[0], latents)


def test_questions(model: Clara, hostile: str) -> None:
    documents = model.encode(["the cache service", "</s><MEM0>"])
    scores = model.rank(model.encode_query(hostile, truncate=True), documents)
    assert scores.shape == (2,)
    assert mx.isfinite(scores).all()
    if len(hostile) < 4000:
        assert isinstance(model.answer(hostile, documents, max_tokens=3), str)
    else:
        with pytest.raises(PromptTooLong):
            model.answer(hostile, documents, max_tokens=3)


def test_lone_surrogates_are_read_as_the_replacement_character(model: Clara) -> None:
    latents = model.encode(["a \ud800 b", "a \ufffd b", "a ? b"])
    assert close(latents[0], latents[1])
    assert not close(latents[0], latents[2])


def test_empty_and_white_space(model: Clara) -> None:
    nothing = model.compress("")
    assert nothing.chunks == ()
    assert nothing.latents.shape == (0, 4, 64)
    assert (nothing.source_tokens, nothing.memory_tokens, nothing.ratio) == (0, 0, 0.0)
    between = model.compress_batch(["a", "", "b"])
    assert [len(compressed.chunks) for compressed in between] == [1, 0, 1]
    assert close(between[2].latents, model.encode("b"))
    assert model.encode([]).shape == (0, 4, 64)
    assert mx.isfinite(model.encode("")).all()
    assert len(model.compress(" \n\t ").chunks) == 1


def test_a_text_of_more_than_one_chunk_is_refused(model: Clara) -> None:
    fits = "worker " * 31
    text = fits + "worker " * 40
    assert len(model.tokenizer.encode(fits)) <= 64 < len(model.tokenizer.encode(text))
    with pytest.raises(
        TextTooLong, match=r"text 1 has \d+ tokens, but one chunk holds 64"
    ) as refused:
        model.encode([fits, text])
    error = refused.value
    assert (error.index, error.tokens) == (1, len(model.tokenizer.encode(text)))
    assert (error.limit, error.exact) == (64, True)
    with pytest.raises(TextTooLong):
        model.encode_query(text)
    assert model.encode(text, truncate=True).shape == (1, 4, 64)


def test_fifty_megabytes_are_refused_unread(model: Clara, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextTokenizer, "encode_batch", refuse)
    monkeypatch.setattr(TextTokenizer, "encode", refuse)
    with pytest.raises(TextTooLong, match="at least 65 tokens") as refused:
        model.encode(["x" * 50_000_000])
    assert (refused.value.tokens, refused.value.limit, refused.value.exact) == (65, 64, False)
    with pytest.raises(PromptTooLong, match="need at least 4097 tokens") as refused:
        model.answer("x" * 50_000_000, mx.zeros((2, 4, 64)))
    assert (refused.value.documents, refused.value.largest_k, refused.value.exact) == (2, 0, False)


def test_truncating_a_long_text_reads_no_more_than_it_needs(model: Clara) -> None:
    start = "flush every socket </s> before the ledger is closed\n" * 40
    assert close(model.encode(start * 10_000, truncate=True), model.encode(start, truncate=True))


@pytest.mark.parametrize("documents", [1, 7])
@pytest.mark.parametrize("window", [120, 128, 129, 130, 200, 4096])
def test_largest_k_fits_and_one_more_does_not(
    model: Clara, documents: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = replace(model.config, window=window)
    for owner in (model, model.prompts):
        monkeypatch.setattr(owner, "config", smaller)
    latents = mx.zeros((1, 4, 64))
    question = "why? " * window

    def ask(k: int, question: str) -> PromptTooLong | None:
        try:
            model.stream_answer(question, mx.repeat(latents, k, axis=0), max_tokens=5)
        except PromptTooLong as error:
            return error
        return None

    error = ask(documents, question)
    assert error is not None
    assert (error.documents, error.window, error.largest_k) == (documents, window, 0)
    assert f"window is {window}: the question alone is too long" in str(error)
    # Each document takes its memory tokens and a separator: 5 tokens.
    error = ask(documents + window, "why?")
    assert error is not None
    assert error.largest_k == (window - (error.tokens - 5 * (documents + window))) // 5 > 0
    assert f"at most {error.largest_k} fit" in str(error)
    assert ask(error.largest_k, "why?") is None
    assert ask(error.largest_k + 1, "why?") is not None


def test_latents_of_another_shape_are_refused(model: Clara) -> None:
    with pytest.raises(ClaraError, match="no latents were given"):
        model.answer("why?", mx.zeros((0, 4, 64)))
    for shape in [(3, 5, 64), (3, 4, 63), (64,), (1, 1, 4, 64)]:
        with pytest.raises(ClaraError, match=r"but this model's are \(k, 4, 64\)"):
            model.answer("why?", mx.zeros(shape))
    with pytest.raises(ClaraError, match="max_tokens must be at least 1"):
        model.answer("why?", mx.zeros((1, 4, 64)), max_tokens=0)
