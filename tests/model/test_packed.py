"""The encoder pass without padding, and what it computes exponentials with on a CPU."""

from functools import cache
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import llama, qwen3
from sizes import sized

from clara_mlx.model.encoder import encode_batch, is_plain
from clara_mlx.model.exponentials import attend, attend_at, swiglu
from clara_mlx.model.lora import TARGETS, Adapters

MEMORY = 4  # memory tokens of an input
NOISE = 1e-5  # of float32, in states of about 1
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 100,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}


@cache
def base(kind: str) -> tuple[Any, Adapters]:
    """A random base, with norms of each head (qwen3) or without (llama), and its adapters."""
    mx.random.seed(0)
    model: Any
    if kind == "qwen3":
        more = {"head_dim": 16, "max_position_embeddings": 512}
        model = qwen3.Model(qwen3.ModelArgs(model_type=kind, **SIZES, **more))
    else:
        model = llama.Model(llama.ModelArgs(model_type=kind, **SIZES))
    for layer in model.layers:  # as a trained model's; a new one's change nothing
        layer.input_layernorm.weight = 1 + 0.1 * mx.random.normal((64,))

    def read(_: str) -> dict[str, mx.array]:
        tensors = {}
        for i, layer in enumerate(model.layers):
            modules = dict(layer.named_modules())
            for target in TARGETS:
                out_dims, in_dims = modules[target].linear.weight.shape
                tensors[f"model.layers.{i}.{target}.lora_a"] = mx.random.normal((in_dims, 4)) / 8
                tensors[f"model.layers.{i}.{target}.lora_b"] = mx.random.normal((4, out_dims)) / 8
        return tensors

    return model, Adapters(model, ("encoder",), read)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@settings(max_examples=sized(15, 200), deadline=None)
@given(lengths=st.lists(st.integers(MEMORY, 110), min_size=1, max_size=7))
def test_inputs_of_any_lengths_have_the_states_of_passes_of_their_own(
    kind: str, lengths: list[int]
) -> None:
    model, adapters = base(kind)
    assert is_plain(model)
    inputs = [[(7 * i + 3 * t) % 100 for t in range(n)] for i, n in enumerate(lengths)]
    with adapters.use("encoder"):
        together = encode_batch(model, inputs, MEMORY)
        assert together.shape == (len(inputs), MEMORY, 64)
        for states, ids in zip(together, inputs, strict=True):
            alone = model.model(mx.array([ids]))[0, -MEMORY:]
            assert mx.abs(states - alone).max().item() < NOISE


@pytest.mark.parametrize(("n", "length"), [(1, 1), (5, 5), (4, 30), (250, 250), (100, 203)])
def test_attention_is_that_of_mlx(n: int, length: int) -> None:
    mx.random.seed(n)
    queries = 3 * mx.random.normal((2, 6, n, 16))
    keys, values = mx.random.normal((2, 2, 2, length, 16))
    expected = mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=0.25, mask="causal"
    )
    assert mx.abs(attend(queries, keys, values, 0.25) - expected).max().item() < NOISE
    at_end = attend_at(queries, keys, values, 0.25, mx.array([length - n] * 2))
    assert mx.abs(at_end - expected).max().item() < NOISE


def test_attention_of_scores_that_overflow_an_exponential() -> None:
    queries, keys = mx.full((1, 1, 3, 8), 40.0), mx.arange(24.0).reshape(1, 1, 3, 8)
    values = mx.random.normal((1, 1, 3, 8))
    assert mx.allclose(attend(queries, keys, values, 1.0), values, atol=NOISE)


def test_swiglu_is_that_of_mlx() -> None:
    gate = mx.concatenate([mx.linspace(-30, 30, 10001), mx.array([-1e30, -1e4, 0.0, 1e4, 1e30])])
    error = mx.abs(swiglu(gate, mx.ones_like(gate)) - gate * mx.sigmoid(gate))
    assert (error / mx.maximum(mx.abs(gate), 1)).max().item() < 3e-7
