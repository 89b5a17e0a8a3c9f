"""Generation: greedy unless sampling is asked for, streamed as it comes, sampled as in mlx-lm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lclm_files
import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache

from clara_mlx import Clara
from clara_mlx.errors import ClaraError
from clara_mlx.model import decoder
from clara_mlx.model.generation import Detokenizer
from clara_mlx.model.tokenizer import TextTokenizer

QUESTION = "Which test failed?"
TOKENIZER = Path(__file__).parents[1] / "golden/tiny-base/tokenizer.json"


@pytest.fixture
def model(clara: Any) -> Clara:
    loaded: Clara = clara("c16", "e2e")
    return loaded


@pytest.fixture
def latents(model: Clara) -> mx.array:
    return model.encode(["1 failed, 41 passed", "def parse(line): return int(line)"])


def test_a_stream_joins_to_the_answer(model: Clara, latents: mx.array) -> None:
    pieces = list(model.stream_answer(QUESTION, latents, max_tokens=24))
    assert len(pieces) > 1
    assert "".join(pieces) == model.answer(QUESTION, latents, max_tokens=24)
    responses = list(model.stream_responses(QUESTION, latents, 24))
    assert model.tokenizer.decode([r.token for r in responses if r.token != 2]) == "".join(pieces)


def test_an_early_end_and_a_budget(model: Clara, latents: mx.array) -> None:
    for budget in (1, 2, 7):
        assert len(list(model.stream_responses(QUESTION, latents, budget))) <= budget
    with pytest.raises(ClaraError, match="max_tokens must be at least 1"):
        model.answer(QUESTION, latents, max_tokens=0)


def test_sampling_options_are_mlx_lms(model: Clara, latents: mx.array) -> None:
    def tokens(seed: int = 0, **options: Any) -> list[int]:
        mx.random.seed(seed)
        return [r.token for r in model.stream_responses(QUESTION, latents, 12, **options)]

    greedy = tokens()
    assert tokens(seed=1) == greedy
    assert tokens(temp=0.0) == greedy
    assert tokens(temp=1.0, top_k=1) == greedy
    assert tokens(temp=1.0, min_p=1.0) == greedy
    hot = [tokens(seed, temp=2.0, top_p=0.95) for seed in range(4)]
    assert tokens(2, temp=2.0, top_p=0.95) == hot[2]  # a seed repeats itself
    assert len({tuple(row) for row in hot}) > 1
    assert tokens(temp=1.0, xtc_probability=1.0, xtc_threshold=0.0001) != greedy
    assert tokens(repetition_penalty=50.0, repetition_context_size=200) != greedy
    with pytest.raises(TypeError, match="warmth"):
        tokens(warmth=1.0)


class Calls:
    """Positions of each pass that decoders make."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.positions: list[int] = []
        run = decoder._DecoderPass.__call__

        def count(network: Any, inputs: mx.array, *rest: Any, **named: Any) -> Any:
            self.positions.append(inputs.shape[1])
            return run(network, inputs, *rest, **named)

        monkeypatch.setattr(decoder._DecoderPass, "__call__", count)

    def take(self) -> list[int]:
        """The positions of the passes since the last call of this."""
        taken, self.positions = self.positions, []
        return taken


def copy_of(model: Clara) -> Clara:
    """Another `Clara` on the same network, which has read nothing yet."""
    own = (model.config, model.network, model.lora, model.tokenizer)
    return Clara(*own, "query_reasoner", model.fingerprint)


def test_what_all_prompts_begin_with_is_read_once(
    model: Clara, latents: mx.array, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy_of(model)
    prompt = model.prompts.answer(QUESTION, 2)
    opening, whole = prompt.opening, len(prompt.ids)
    assert opening == prompt.slots[0] > 20
    assert model.prompts.answer("Another?", 5).ids[:opening] == prompt.ids[:opening]
    calls = Calls(monkeypatch)
    first = list(model.stream_responses(QUESTION, latents, 3))
    assert calls.take() == [opening, whole - opening - 1, 1, 1, 1]
    again = list(model.stream_responses(QUESTION, latents, 3))
    assert calls.take() == [whole - opening - 1, 1, 1, 1]
    assert [r.token for r in again] == [r.token for r in first]
    assert {r.prompt_tokens for r in again} == {whole}
    model.paraphrase(latents, max_tokens=1)  # another kind of prompt
    assert len(calls.take()) == 3
    model.answer("Another?", latents[:1], max_tokens=1)
    assert len(calls.take()) == 2


def test_no_pass_is_made_for_a_token_that_nobody_sees(
    model: Clara, latents: mx.array, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    for budget in (1, 2, 9):
        calls.take()
        tokens = [r.token for r in model.stream_responses(QUESTION, latents, budget)]
        passes = [positions for positions in calls.take() if positions == 1]
        assert len(tokens) == len(passes) == budget


def test_a_trained_adapter_reads_the_beginning_again(model: Clara, latents: mx.array) -> None:
    def tokens(of: Clara) -> list[int]:
        return [r.token for r in of.stream_responses(QUESTION, latents, 12)]

    model = copy_of(model)
    before, own = tokens(model), model.lora.tensors("decoder")
    changed = {name: array * -3.0 for name, array in own.items()}
    model.lora.replace_tensors("decoder", changed)
    try:
        assert tokens(model) == tokens(copy_of(model)) != before
    finally:
        model.lora.replace_tensors("decoder", own)
    assert tokens(model) == before


def test_a_repetition_penalty_counts_the_whole_prompt(model: Clara, latents: mx.array) -> None:
    sampling: Any = {"repetition_penalty": 9.0, "repetition_context_size": 1000}
    fresh = copy_of(model)
    wanted = [r.token for r in fresh.stream_responses(QUESTION, latents, 8, **sampling)]
    fresh.answer(QUESTION, latents, max_tokens=1)  # now the beginning is known
    again = [r.token for r in fresh.stream_responses(QUESTION, latents, 8, **sampling)]
    assert again == wanted


def test_the_pass_is_mlx_lms_own_but_for_rounding(model: Clara) -> None:
    ids = mx.array([model.prompts.answer(QUESTION, 1).ids])
    own, plain = make_prompt_cache(model.network), make_prompt_cache(model.network)
    network = decoder._DecoderPass(model.network, model.lora)
    for start, end in ((0, 40), (40, 47), (47, 48), (48, ids.shape[1])):  # as prompts are read
        logits = network(ids[:, start:end], own)
        with model.lora.use("decoder"):
            wanted = model.network(ids[:, start:end], plain)
        assert logits.shape == wanted.shape
        assert mx.abs(logits - wanted).max().item() < 1e-4


def test_paraphrase_takes_them_too(model: Clara, latents: mx.array) -> None:
    greedy = model.paraphrase(latents, max_tokens=8)
    assert model.paraphrase(latents, max_tokens=8, temp=1.0, top_k=1) == greedy
    with pytest.raises(ClaraError, match="once"):
        model.paraphrase(latents, instruction="no place for them")


# Byte fallback, and a byte-level tokenizer: two ways in which a character has several tokens.
BYTE_LEVEL = lclm_files.checkpoint("c4") / "decoder" / "tokenizer.json"


@pytest.mark.parametrize("file", [TOKENIZER, BYTE_LEVEL], ids=["fallback", "byte level"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_was_streamed_is_never_taken_back(file: Path, data: st.DataObject) -> None:
    texts = TextTokenizer(file.read_text())
    detokenizer = Detokenizer(texts, None)
    bytes_and_specials = st.integers(0, 258)
    most = texts.full.get_vocab_size() - 1
    ids = data.draw(st.lists(st.one_of(bytes_and_specials, st.integers(0, most)), max_size=12))
    ids += texts.encode(data.draw(st.text(max_size=4)))
    seen = ""
    for id in ids:
        detokenizer.add_token(id)
        assert detokenizer.text.startswith(seen)
        seen = detokenizer.text
    detokenizer.finalize()
    assert detokenizer.text.startswith(seen)
    assert detokenizer.text == texts.decode(ids)
