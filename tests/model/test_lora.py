"""Adapters: exactly one active per pass, read when first used, refused when they don't fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import clara_mlx
from clara_mlx.convert.pth import read_pth
from clara_mlx.errors import CheckpointError

LAYER = "model.layers.1.mlp.down_proj"


def test_only_the_adapters_in_use_are_read(folder: Any) -> None:
    model = clara_mlx.load(folder("c16", "e2e"))
    read, reads = model.lora._read, []

    def noted(name: str) -> Any:
        reads.append(name)
        return read(name)

    model.lora._read = noted
    assert model.adapters == ("decoder", "encoder", "query_reasoner")
    assert reads == []
    latents = model.encode("text")
    assert reads == ["encoder"]
    model.answer("question?", latents, max_tokens=1)
    assert reads == ["encoder", "decoder"]
    model.encode_query("question?")
    model.encode("another text")
    assert reads == ["encoder", "decoder", "query_reasoner"]


def test_exactly_one_is_active(clara: Any, golden: Path) -> None:
    """A layer's output is its base's plus the active adapter's own matrices, and nothing else."""
    model = clara("c16", "e2e")
    layer = model.network.model.layers[1].mlp.down_proj
    x = mx.random.normal((2, 160), key=mx.random.key(1))
    plain = x @ layer.linear.weight.T
    assert mx.allclose(layer(x), plain, atol=1e-5)
    files = read_pth(golden / "c16/e2e/adapters.pth")
    for name in model.adapters:
        matrices = files[f"{name}_adapter"]
        a, b = (matrices[f"{LAYER}.lora_{ab}.weight"].read().astype(mx.float32) for ab in "AB")
        with model.lora.use(name):
            assert model.lora.active == name
            assert mx.allclose(layer(x), plain + 2 * (x @ a.T) @ b.T, atol=1e-4)
    assert model.lora.active is None


def test_use_nests_and_returns_after_an_error(clara: Any) -> None:
    adapters = clara("c16", "e2e").lora
    with adapters.use("encoder"):
        with pytest.raises(RuntimeError), adapters.use("decoder"):
            raise RuntimeError
        assert adapters.active == "encoder"
    assert adapters.active is None


def test_encoding_between_two_tokens_of_a_stream(clara: Any) -> None:
    """A stream's tokens don't change when other passes run in between."""
    model = clara("c16", "e2e")
    latents = model.encode(["first", "second"])
    undisturbed = [r.token for r in model.stream_responses("which?", latents, 12)]
    tokens = []
    for response in model.stream_responses("which?", latents, 12):
        tokens.append(response.token)
        model.encode_query("something else")
        model.encode("another text")
    assert tokens == undisturbed


def test_an_adapter_that_does_not_fit(folder: Any) -> None:
    adapters = clara_mlx.load(folder("c16", "e2e")).lora
    good = adapters._read

    def read(name: str) -> dict[str, mx.array]:
        tensors = dict(good(name))
        tensors.pop("model.layers.0.mlp.up_proj.lora_a")
        tensors[f"{LAYER}.lora_b"] = mx.zeros((8, 63))
        tensors["model.layers.7.mlp.up_proj.lora_a"] = mx.zeros((64, 8))
        return tensors

    adapters._read = read
    with pytest.raises(CheckpointError) as error, adapters.use("encoder"):
        pass
    for part in ("missing model.layers.0.mlp.up", f"{LAYER}: shapes", "unexpected model.layers.7"):
        assert part in str(error.value)
    assert not adapters._loaded
    with pytest.raises(CheckpointError, match="no adapter 'other'"), adapters.use("other"):
        pass
