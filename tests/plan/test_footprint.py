"""KV caches and passes, compared with mlx-lm's own caches and with the memory of a real pass."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import QuantizedKVCache, make_prompt_cache
from tiny_models import HYBRIDS, LATENTS, MOE, TIED, WINDOWED, make_model

from clara_mlx.errors import ClaraError
from clara_mlx.plan import shapes
from clara_mlx.plan.footprint import Footprint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Footprint]:
    # float32: a CPU is fastest with it.
    config = TIED | {"torch_dtype": "float32", "num_hidden_layers": 2}
    folder = tmp_path_factory.mktemp("tiny")
    return make_model(config, folder), shapes.read(folder / "config.json")


@settings(max_examples=12, deadline=None)
@given(
    tokens=st.integers(2, 1100),
    kv_bits=st.sampled_from([16, 8, 4]),
    step=st.sampled_from([256, 512]),
)
def test_kv_cache_of_a_real_prompt(
    tiny: tuple[Any, Footprint], tokens: int, kv_bits: int, step: int
) -> None:
    model, footprint = tiny
    cache = make_prompt_cache(model)
    quantised = {} if kv_bits == 16 else {"kv_bits": kv_bits, "quantized_kv_start": 0}
    prompt = mx.arange(tokens) % 300
    list(
        generate_step(
            prompt, model, max_tokens=0, prompt_cache=cache, prefill_step_size=step, **quantised
        )
    )
    assert cache[0].offset == tokens
    assert isinstance(cache[0], QuantizedKVCache) == (kv_bits != 16)
    assert sum(layer.nbytes for layer in cache) == footprint.kv_bytes(tokens, kv_bits, step)


@pytest.mark.parametrize("config", HYBRIDS + LATENTS, ids=lambda config: config["model_type"])
def test_a_cache_of_any_kind_after_a_prompt(config: dict[str, Any], tmp_path: Path) -> None:
    """Only attention layers hold keys and values; a state is constant; latents are small."""
    model = make_model(config, tmp_path)
    footprint = shapes.read(tmp_path / "config.json")
    assert footprint.is_trimmable == (config in LATENTS)
    cache = make_prompt_cache(model)
    for tokens in (256, 512):
        model(mx.zeros((1, 256), mx.int32), cache=cache)
        mx.eval([layer.state for layer in cache])
        assert sum(layer.nbytes for layer in cache) == footprint.kv_bytes(tokens, step=256)


def test_a_window_holds_one_step_more(tmp_path: Path) -> None:
    config = WINDOWED | {"torch_dtype": "float32"}  # the only one that CPUs do experts in
    model = make_model(config, tmp_path)
    footprint = shapes.from_config(config, where="test")
    cache = make_prompt_cache(model)
    for _ in range(3):
        model(mx.zeros((1, 256), mx.int32), cache=cache)
        mx.eval([layer.state for layer in cache])
    assert sum(layer.nbytes for layer in cache) == footprint.kv_bytes(768, step=256)
    assert footprint.kv_bytes(64, step=256) < footprint.kv_bytes(768, step=256)
    with pytest.raises(ClaraError, match="sliding-window"):
        footprint.kv_bytes(768, kv_bits=8)


def test_a_head_size_that_mlx_lm_cannot_quantise() -> None:
    footprint = shapes.from_config(TIED | {"head_dim": 32}, where="test")
    assert footprint.kv_bytes(256) == 3 * 2 * 256 * 2 * 32 * 2
    with pytest.raises(ClaraError, match="multiple of 64"):
        footprint.kv_bytes(256, kv_bits=8)


def test_the_state_of_a_recurrent_layer_does_not_grow() -> None:
    config = {
        "model_type": "mamba",
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 128,
        "state_size": 8,
        "num_hidden_layers": 2,
        "conv_kernel": 4,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_rank": 4,
    }
    footprint = shapes.from_config(config, where="test")
    assert footprint.kv_bytes(100) == footprint.kv_bytes(100_000) > 0


def test_a_copied_cache_is_paid_for_when_it_grows(tiny: tuple[Any, Footprint]) -> None:
    """Why kept caches come on top of those in use: mlx_lm.server continues a copy."""
    model, footprint = tiny
    kept = make_prompt_cache(model)
    model(mx.zeros((1, 1024), mx.int32), cache=kept)
    mx.eval([layer.state for layer in kept])
    mx.clear_cache()
    before = mx.get_active_memory()
    used = deepcopy(kept)
    model(mx.zeros((1, 1), mx.int32), cache=used)
    mx.eval([layer.state for layer in used])
    assert mx.get_active_memory() - before >= footprint.kv_bytes(1025)


@pytest.mark.parametrize("kv_bits", [16, 8])
@pytest.mark.parametrize("config", [MOE, TIED], ids=lambda config: config["model_type"])
def test_a_pass_stays_below_its_estimate(
    config: dict[str, Any], kv_bits: int, tmp_path: Path
) -> None:
    # A CPU makes the scores of plain caches too: 32 is a head size without a fused kernel.
    head_dim = 32 if kv_bits == 16 else 64
    config = config | {"head_dim": head_dim, "torch_dtype": "float32", "num_attention_heads": 8}
    model, step, context = make_model(config, tmp_path), 256, 1024
    mx.eval(model.parameters())
    footprint = shapes.from_config(config, where="test", bits=16)
    cache = make_prompt_cache(model)
    if kv_bits != 16:
        cache = [QuantizedKVCache(bits=kv_bits) for _ in cache]
    for done in range(0, context, step):
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        model(mx.arange(done, done + step)[None] % 300, cache=cache)
        mx.eval([layer.state for layer in cache])
    measured = mx.get_peak_memory() - before
    growth = footprint.kv_bytes(context, kv_bits) // len(cache)  # one layer's, old and new
    estimate = footprint.step_bytes(step, context, kv_bits) + growth
    assert estimate / 6 < measured < estimate


def test_scores_are_only_made_without_a_fused_kernel() -> None:
    fused = shapes.from_config(TIED, where="test")
    assert fused.step_bytes(512, 1024) == fused.step_bytes(512, 99_999)
    scores = 512 * 1024 * (2 * 4 * 2 + 1)
    assert fused.step_bytes(512, 1024, kv_bits=8) == fused.step_bytes(512, 1024) + scores
