"""Drafts from texts: the answer stays the same, and what is copied takes fewer passes."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from golden_files import VARIANTS, expected
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx import Clara
from clara_mlx.model import decoder
from clara_mlx.model.lookup import DRAFTED, Lookup

VOCABULARY = 50
NOTHING = VOCABULARY  # what stands for no draft


def drafts(lookup: Lookup, *new: int, times: int = DRAFTED) -> list[int]:
    """The drafts after new tokens, as mlx-lm has them made: one call each."""
    inputs = mx.array([list(new)])
    made = []
    for _ in range(times):
        logits = lookup(inputs)
        assert logits.shape == (1, 1, VOCABULARY + 1)
        made.append(int(mx.argmax(logits[0, 0]).item()))
        inputs = mx.array([[made[-1]]])
    return made


def test_what_follows_in_a_text_is_drafted() -> None:
    lookup = Lookup([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]], VOCABULARY)
    assert drafts(lookup, 3) == [NOTHING] * DRAFTED  # one token is no place
    lookup.trim(DRAFTED - 1)
    assert drafts(lookup, 4) == [5, 6, 7, 8, 9, 10]
    assert lookup.drafted == DRAFTED
    lookup.trim(DRAFTED - 1 - 2)  # 5 and 6 were right
    assert drafts(lookup, 30) == [NOTHING] * DRAFTED
    assert lookup.drafted == 0


def test_all_drafts_were_right() -> None:
    lookup = Lookup([list(range(1, 20))], VOCABULARY)
    assert drafts(lookup, 1, 2, times=3) == [3, 4, 5]
    lookup.trim(0)
    assert drafts(lookup, 5, 6, times=3) == [7, 8, 9]  # the last draft, and one more


def test_the_place_that_is_most_alike_and_the_first_of_equals() -> None:
    texts = [[9, 1, 2, 11], [8, 1, 2, 12], [8, 1, 2, 13]]
    assert drafts(Lookup(texts, VOCABULARY), 8, 1, 2, times=2) == [12, NOTHING]
    assert drafts(Lookup(texts, VOCABULARY), 1, 2, times=1) == [11]


def test_no_draft_goes_on_in_another_text() -> None:
    lookup = Lookup([[1, 2], [3, 4, 5]], VOCABULARY)
    assert drafts(lookup, 1, 2, times=2) == [NOTHING] * 2
    lookup.trim(1)
    assert drafts(lookup, 3, times=2) == [NOTHING] * 2


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=3),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, DRAFTED)), min_size=1, max_size=6),
)
def test_drafts_stand_in_a_text_after_the_answers_end(
    texts: list[list[int]], rounds: list[tuple[int, int]]
) -> None:
    lookup = Lookup(texts, VOCABULARY)
    answer: list[int] = []
    unseen: list[int] = []
    for token, right in rounds:
        answer.append(token)
        made = drafts(lookup, *unseen, token)
        real = [draft for draft in made if draft != NOTHING]
        assert made == real + [NOTHING] * (DRAFTED - len(real))
        assert lookup.drafted == len(real)
        wanted = answer[-2:] + real
        if real:
            assert any(wanted == t[i : i + len(wanted)] for t in texts for i in range(len(t)))
        right = min(right, len(real))
        answer += real[:right]
        unseen = real[-1:] if right == DRAFTED else []
        lookup.trim(max(DRAFTED - right - 1, 0))


def tokens(model: Clara, question: str, latents: mx.array, budget: int, **more: Any) -> list[int]:
    return [r.token for r in model.stream_responses(question, latents, budget, **more)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_answers_whatever_is_drafted(clara: Any, variant: str) -> None:
    model, data = clara(variant, "e2e"), expected(variant)
    documents = [d["text"] for d in data["documents"]]
    for question in data["questions"][:3]:
        latents = model.encode(documents[:3], truncate=True)
        plain = tokens(model, question, latents, 24)
        answer = model.tokenizer.decode(plain)
        wrong = [model.tokenizer.decode(plain[:i] + plain[i - 2 : i]) for i in (4, 9, 15)]
        for texts in (documents, [answer], wrong, [answer[5:], *wrong, question]):
            for budget in (1, 2, 3, 9, 24):
                drafted = tokens(model, question, latents, budget, texts=texts)
                assert drafted == plain[:budget]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_copy_takes_fewer_passes(
    clara: Any, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = clara(variant, "e2e")
    latents, question = model.encode(["1 failed, 41 passed"]), "Which test failed?"
    plain = list(model.stream_responses(question, latents, 24))
    whole = "".join(response.text for response in plain)
    passes = []
    run = decoder._DecoderPass.__call__

    def count(network: Any, inputs: mx.array, *rest: Any, **named: Any) -> Any:
        passes.append(inputs.shape[1])
        return run(network, inputs, *rest, **named)

    monkeypatch.setattr(decoder._DecoderPass, "__call__", count)
    copied = list(model.stream_responses(question, latents, 24, texts=[whole]))
    assert [r.token for r in copied] == [r.token for r in plain]
    assert "".join(response.text for response in copied) == whole
    assert {r.prompt_tokens for r in copied} == {r.prompt_tokens for r in plain}
    drafted = sum(response.from_draft for response in copied)
    assert len(passes) - 1 == len(plain) - drafted < len(plain)  # the first reads the prompt
    passes.clear()
    unlike = list(model.stream_responses(question, latents, 24, texts=["nothing of it"]))
    assert [r.token for r in unlike] == [r.token for r in plain]
    assert set(passes[1:]) == {1}  # no row is computed for a draft that there is not


def test_sampling_takes_no_drafts(clara: Any) -> None:
    model = clara("c16", "e2e")
    latents = model.encode(["1 failed, 41 passed"])
    mx.random.seed(3)
    plain = tokens(model, "Which?", latents, 12, temp=1.0)
    mx.random.seed(3)
    given = tokens(model, "Which?", latents, 12, temp=1.0, texts=["1 failed, 41 passed"])
    assert given == plain
