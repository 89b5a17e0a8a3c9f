"""clara-nano's pretraining: its forward pass, and the tokens that its lessons point at."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.llama import Model, ModelArgs

from clara_mlx.model.tokenizer import TextTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "nano"))

import forward
import pretrain
from batches import Batches

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
        gradients(model, forward.final_states, forward.cross_entropy), expected, strict=True
    ):
        assert mx.abs(one - other).max().item() <= 1e-4 * mx.abs(other).max().item()


@pytest.mark.parametrize("step", [0, 300, 600, 5000])
def test_every_lesson_points_at_what_is_copied(golden: Path, step: int) -> None:
    tokenizer = TextTokenizer((golden / "tiny-base" / "tokenizer.json").read_text())
    config = replace(
        pretrain.clara_config(len(tokenizer.full.get_vocab())), doc_max_length=256, window=8192
    )
    one, same = (Batches(tokenizer, config, 1).step(step) for _ in range(2))
    pointed = learned = 0
    for half, again in zip(one, same, strict=True):
        for array, other in zip(half.arrays(), again.arrays(), strict=True):
            assert (array == other).all()
        for rows, in_text in ((half.rows, False), (half.text_rows, True)):
            row, column = np.nonzero(rows.sources >= 0)
            source = rows.sources[row, column]
            assert (source <= rows.at[row, column] - row * rows.ids.shape[1]).all()
            if in_text:
                assert (rows.ids[row, source] == rows.labels[row, column]).all()
            else:
                assert (rows.slots[row, source] >= 0).all()
            pointed += len(row)
            learned += int((rows.labels >= 0).sum())
        where, head, source = half.places[:, half.places[2] >= 0]
        assert set(where) <= set(half.memory.flat)
        assert ((head >= 0) & (head < 6)).all()
        row, position = np.divmod(where, half.encoder.shape[1])
        assert (source < position).all()
        assert (half.encoder[row, source] > 2).all()
    assert pointed > learned / 4
