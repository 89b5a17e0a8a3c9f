"""Batched greedy answers are those of `Clara.answer`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clara_mlx import Clara
from clara_mlx.errors import PromptTooLong
from clara_mlx.evaluate import batched
from clara_mlx.evaluate.batched import Reading

QUESTIONS = (
    "Which test failed?",
    "How many?",
    "Where is the error, and what does it say about it?",
)


def readings(clara: Clara, count: int) -> list[tuple[str, Reading]]:
    """Questions about one to three documents each, of all lengths."""
    prompts = clara.prompts
    texts = [f"FAILED tests/test_{i}.py::test_{i * i}\n{i} passed" for i in range(count)]
    latents = np.array(clara.encode(texts))
    made = []
    for i in range(count):
        question = QUESTIONS[i % 3] + "?" * (i % 4)
        k = 1 + i % 3
        chosen = latents[[(i + j) % count for j in range(k)]]
        made.append((question, Reading(prompts.answer(question, k), chosen)))
    return made


def one_by_one(clara: Clara, question: str, latents: np.ndarray[Any, Any], tokens: int) -> str:
    """The tokens of `Clara.answer`, decoded as one text."""
    responses = list(clara.stream_responses(question, latents, tokens))
    return clara.tokenizer.decode([response.token for response in responses])


@pytest.mark.parametrize("variant", ["c16", "c4"])
def test_latents_are_answered_as_one_by_one(
    clara: Callable[..., Clara], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = clara(variant, "e2e")
    made = readings(model, 12)
    expected = [one_by_one(model, question, reading.latents, 8) for question, reading in made]
    assert len(set(expected)) > 4
    for group in (batched.GROUP, 5):  # with and without a rest
        monkeypatch.setattr(batched, "GROUP", group)
        given = dict(batched.generate_answers(model, [reading for _, reading in made], 8))
        assert [given[i] for i in range(len(made))] == expected


def test_text_is_answered_as_one_by_one(clara: Callable[..., Clara]) -> None:
    model = clara("c16", "e2e")
    prompts = model.prompts
    texts = ["", "x", "FAILED tests/test_io.py::test_load\n" * 3]
    made = [
        Reading(prompts.answer(QUESTIONS[i % 3], 0, text=model.tokenizer.encode(text)), None)
        for i, text in enumerate(texts * 2)
    ]
    empty = np.zeros((0, model.config.memory_tokens, model.config.hidden_size), np.float32)
    expected = [
        model.tokenizer.decode([r.token for r in model._decoder.stream(prompt, empty, 6, {})])
        for prompt, _ in made
    ]
    given = dict(batched.generate_answers(model, made, 6))
    assert [given[i] for i in range(len(made))] == expected


def test_answers_end_where_the_model_ends_them(
    clara: Callable[..., Clara], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = clara("c16", "e2e")
    made = readings(model, 12)
    whole = [list(model.stream_responses(q, reading.latents, 6)) for q, reading in made]
    # Random weights rarely say </s>: let a token end answers that some of these come to.
    end = whole[0][2].token
    monkeypatch.setattr(model, "config", replace(model.config, eos_id=end))
    given = dict(batched.generate_answers(model, [reading for _, reading in made], 6))
    stopped = 0
    for number, responses in enumerate(whole):
        tokens = [response.token for response in responses]
        stopped += end in tokens
        kept = tokens[: tokens.index(end)] if end in tokens else tokens
        assert given[number] == model.tokenizer.decode(kept)
    assert 0 < stopped < len(made)


def test_too_long_a_prompt_is_refused(clara: Callable[..., Clara]) -> None:
    model = clara("c16", "e2e")
    prompts = model.prompts
    size = model.config.memory_tokens
    k = model.config.window // (size + 1)
    latents = np.zeros((k, size, model.config.hidden_size), np.float32)
    with pytest.raises(PromptTooLong) as error:
        list(batched.generate_answers(model, [Reading(prompts.answer("Which?", k), latents)], 8))
    assert error.value.largest_k == model.documents_that_fit("Which?", 8)


def test_nothing_to_read(clara: Callable[..., Clara]) -> None:
    assert list(batched.generate_answers(clara("c16", "e2e"), [], 8)) == []


def test_common_prefix_leaves_each_prompt_two_tokens() -> None:
    shared = random.Random(0).sample(range(100), 9)
    assert batched._common_prefix([[*shared, 1, 2], [*shared, 3, 4, 5]]) == 9
    assert batched._common_prefix([shared, shared]) == 7
    assert batched._common_prefix([[1, 2, 3], [4, 2, 3]]) == 0
    assert batched._common_prefix([[1], [1]]) == 0
