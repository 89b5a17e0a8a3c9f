"""What clara-nano's pretraining adds: its forward pass, and lessons that can be answered."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.llama import Model, ModelArgs

from clara_mlx.tokenizer import TextTokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "nano"))

import forward
from documents import Documents

SHAPE = {
    "model_type": "mistral",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 50,
    "tie_word_embeddings": False,
}


def gradients(model: Model, states: Any, cross_entropy: Any) -> list[mx.array]:
    ids = mx.random.randint(0, 50, (3, 20), key=mx.random.key(1))

    def loss(parameters: Any) -> mx.array:
        model.update(parameters)
        logits = model.lm_head(states(model, model.model.embed_tokens(ids[:, :-1])))
        return cross_entropy(logits, ids[:, 1:]).mean()

    parameters = model.trainable_parameters()
    value, found = mx.value_and_grad(loss)(parameters)
    model.update(parameters)
    return [value, *(gradient for _, gradient in tree_flatten(found))]


def test_losses_and_gradients_are_mlx_lms() -> None:
    mx.random.seed(0)
    model = Model(ModelArgs(**SHAPE))
    model.update(tree_map(lambda weight: weight * 3, model.parameters()))

    def theirs(model: Model, h: mx.array) -> mx.array:
        for layer in model.model.layers:
            h = layer(h, "causal")
        return model.model.norm(h)

    expected = gradients(model, theirs, nn.losses.cross_entropy)
    for one, other in zip(
        gradients(model, forward.states, forward.cross_entropy), expected, strict=True
    ):
        assert mx.abs(one - other).max().item() <= 1e-4 * mx.abs(other).max().item()


@pytest.mark.parametrize("plain", [True, False])
def test_lessons_hold_their_answers(golden: Path, plain: bool) -> None:
    tokenizer = TextTokenizer((golden / "tiny-base" / "tokenizer.json").read_text())
    source = Documents(tokenizer, 128)
    rng = random.Random(0)
    for _ in range(50):
        output, ids = source.drill(rng, plain)
        assert ids == tokenizer.encode(output.text)
        for probe in output.probes:
            assert output.text[probe.start : probe.end] == probe.answer
            assert output.text.count(f"{probe.question.split()[-1].rstrip('?')}") >= 1
        _, noise = source.noise(rng, 4, 9, plain)
        assert 4 <= len(noise) <= 9
