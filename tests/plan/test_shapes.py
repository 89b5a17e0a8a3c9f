"""Sizes of weights, compared with real files: models made here, and our own folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from golden_files import ROOT
from mlx.utils import tree_flatten
from mlx_lm.utils import quantize_model, save_config, save_model
from tiny_models import MOE, ODD, TIED, make_model, stored_bytes

from clara_mlx.context.cache_kinds import cache_of
from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import load
from clara_mlx.model.folder import ModelFolder
from clara_mlx.plan import reasoners, shapes


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8, 16])
@pytest.mark.parametrize("config", [MOE, TIED, ODD], ids=lambda config: config["model_type"])
def test_weights_of_real_files(config: dict[str, Any], bits: int, tmp_path: Path) -> None:
    model = make_model(config, tmp_path)
    parameters = sum(array.size for _, array in tree_flatten(model.parameters()))
    quantised = dict(config)
    if bits != 16:
        model, quantised = quantize_model(model, config, 32 if bits == 6 else 64, bits)
    save_model(tmp_path, model)
    save_config(dict(quantised), tmp_path / "config.json")

    computed = shapes.from_config(
        config, where="test", bits=bits, group_size=32 if bits == 6 else 64
    )
    assert computed.weight_bytes == stored_bytes(tmp_path)
    assert computed.parameters == parameters
    as_stored = shapes.read(tmp_path)
    assert as_stored == computed  # from the files alone, the same in every figure
    assert as_stored.bits == bits


def test_a_router_keeps_eight_bits() -> None:
    two = shapes.from_config(MOE, where="test", bits=2)
    no_experts = {**MOE, "num_experts": 0}
    without = shapes.from_config(no_experts, where="test", bits=2)
    layers, hidden, experts, width = 2, 128, 6, 64
    router = experts * (hidden * 8 // 8 + 2 * 2 * hidden // 64)
    expert = 3 * hidden * width * (2 / 8 + 2 * 2 / 64)
    dense = 3 * hidden * 192 * (2 / 8 + 2 * 2 / 64)
    assert two.weight_bytes - without.weight_bytes == layers * (router + experts * expert - dense)


# Published parameter counts: the repositories' safetensors metadata on huggingface.co, and for
# GLM-4.5-Air and gpt-oss what public size tables derive without multi-token prediction.
PUBLISHED = {
    "Qwen3-235B-A22B": 235_093_634_560,
    "Qwen3-30B-A3B": 30_532_122_624,
    "Qwen3-Coder-480B-A35B": 480_154_875_392,
    "Qwen3-32B": 32_762_123_264,
    "GLM-4.5-Air": 106_852_251_264,
    "gpt-oss-120b": 116_829_156_672,
    "Llama-3.3-70B": 70_553_706_496,
    "gpt-oss-20b": 20_914_757_184,
    "Qwen3-Coder-30B-A3B": 30_532_122_624,
}

# Of the others, what their names or cards say, which count the language model alone.
NOMINAL = {
    "Qwen3.6-35B-A3B": 35e9,
    "Qwen3.5-35B-A3B": 35e9,
    "Qwen3.8-27B": 27e9,
    "Qwen3.5-27B": 27e9,
    "Qwen3-Coder-Next": 80e9,
    "Qwen3-Next-80B-A3B": 80e9,
    "GLM-4.7-Flash": 30e9,
}


@pytest.mark.parametrize("name", reasoners.REASONERS)
def test_known_reasoners_have_their_published_size(name: str) -> None:
    entry = reasoners.find(name.lower())
    assert entry is reasoners.find(entry.repository)
    unquantised = shapes.from_config(entry.config, where=name, bits=16)
    if name in PUBLISHED:
        assert unquantised.parameters == PUBLISHED[name]
    else:
        assert unquantised.parameters == pytest.approx(NOMINAL[name], rel=0.015)
    assert unquantised.weight_bytes >= 2 * unquantised.parameters
    assert (cache_of(entry.config) == "trimmable") == unquantised.is_trimmable
    assert "github.com" in entry.source or "huggingface.co" in entry.source


def test_the_235b_model_is_not_60_gb() -> None:
    entry = reasoners.find("Qwen3-235B-A22B")
    sizes = {b: shapes.from_config(entry.config, where="235B", bits=b) for b in (4, 3, 2)}
    assert {b: round(size.weight_bytes / 1e9, 1) for b, size in sizes.items()} == {
        4: 132.3,
        3: 102.9,
        2: 73.5,
    }
    assert sizes[4].kv_bytes(32768) == 32768 * 188 * 1024


def test_sizing_takes_no_memory() -> None:
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    shapes.from_config(reasoners.find("Qwen3-235B-A22B").config, where="235B", bits=4)
    assert mx.get_peak_memory() - before < 1e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"num_experts": None}, "test"),
        ({"hidden_size": "wide"}, "test"),
        ({"hidden_size": -1}, "test"),
    ],
)
def test_a_config_that_mlx_lm_cannot_build(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ClaraError, match=f"{message}.*mlx_lm.server can't serve it"):
        shapes.from_config(MOE | change, where="test")


def test_bits_that_mlx_does_not_have() -> None:
    with pytest.raises(ClaraError, match="7 bits"):
        shapes.from_config(MOE, where="test", bits=7)
    with pytest.raises(ClaraError, match="groups of 48"):
        shapes.from_config(MOE, where="test", bits=4, group_size=48)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": 3}', "\x00"])
def test_files_that_are_not_a_config(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ClaraError, match=r"config\.json"):
        shapes.read(tmp_path / "config.json")
    with pytest.raises(ClaraError, match=r"config\.json"):
        shapes.read(tmp_path)
    with pytest.raises(ClaraError, match="nowhere"):
        shapes.read(tmp_path / "nowhere")


def test_a_quantised_config_alone_says_its_bits(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(MOE | {"quantization": {"bits": 3, "group_size": 32}}))
    assert shapes.read(file) == shapes.from_config(MOE, where="test", bits=3, group_size=32)
    assert shapes.read(file, bits=8) == shapes.from_config(MOE, where="test", bits=8)


# -- CLaRa -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-q", "8"), ("-q", "4"), ("-q", "none")])
def test_clara_of_our_own_folders(folder: Callable[..., Path], options: tuple[str, ...]) -> None:
    path = folder("c16", "e2e", *options)
    footprint = shapes.clara_folder(path)
    assert footprint.base.weight_bytes == stored_bytes(path)
    assert footprint.adapter_bytes == stored_bytes(path, "adapters/*/adapters.safetensors")
    rows = ModelFolder.open(path).memory_rows()
    dtype = ModelFolder.open(path).dtype
    assert footprint.row_bytes == rows.size * dtype.size

    clara = load(path)
    latents = clara.encode("one")
    clara.rank("two", latents)
    clara.answer("three", latents, max_tokens=1)
    loaded = sum(array.nbytes for _, array in tree_flatten(clara.network.parameters()))
    # On this CPU an unquantised model and the rows are float32 in memory.
    if options in ((), ("-q", "8"), ("-q", "4")):
        assert loaded == footprint.weight_bytes + rows.size * (4 - dtype.size)


@pytest.mark.parametrize("bits", [8, 4])
def test_clara_from_its_settings_is_what_convert_makes(
    folder: Callable[..., Path], golden: Path, bits: int
) -> None:
    path = folder("c16", "e2e", "-q", str(bits))
    config = ModelFolder.open(path).config
    base = json.loads((golden / "tiny-base" / "config.json").read_text())
    computed = shapes.clara_from_config(
        base, bits=bits, added_tokens=len(config.added_tokens), rank=config.lora_r
    )
    assert computed.weight_bytes == shapes.clara_folder(path).weight_bytes


@pytest.mark.parametrize("bits", [8, 4])
def test_clara_7b_is_what_full_size_measured(bits: int) -> None:
    results = json.loads((ROOT / "bench/results/full_size.json").read_text())
    measured = next(found for found in _dicts(results) if str(bits) in found)[str(bits)]
    computed = shapes.clara_from_config(**reasoners.CLARA_7B, bits=bits)
    # Measured on a CPU, where the added tokens' rows are float32; MLX keeps a scalar or two.
    on_cpu = computed.weight_bytes + computed.row_bytes
    assert on_cpu <= measured["array_bytes"] <= on_cpu + 64


def _dicts(value: Any) -> Any:
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _dicts(part)
