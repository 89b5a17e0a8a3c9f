"""Verification finds damage, and `inspect` describes folders and checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from clara_mlx.convert import Source, inspect, verify
from clara_mlx.convert.verification import NextTokens
from clara_mlx.model.folder import ModelFolder, load_arrays


@pytest.fixture
def source(golden: Path) -> Source:
    return Source.open(golden / "c16/e2e", base=golden / "tiny-base")


@pytest.mark.parametrize(
    "options", [("-q", "8"), ("-q", "4", "--group-size", "32"), ("--q-mode", "nvfp4"), ()]
)
def test_an_honest_folder(folder: Any, source: Source, options: tuple[str, ...]) -> None:
    result = verify(folder("c16", "e2e", *options), source)
    assert result.problems == []
    assert result.identical == result.tensors == 30 + 3 * 42 + 1
    assert result.cosines.keys() == {"encoder", "query_reasoner"}
    tokens = result.next_tokens
    assert tokens is not None and tokens.positions == 3 * 16
    if not options:
        assert tokens.same == tokens.positions and tokens.kl < 1e-5 and tokens.shift < 1e-3
    else:
        assert tokens.shift > 1e-3
    least = {("-q", "8"): 0.99, (): 0.999999}.get(options, 0.7)
    assert all(least < cosine <= 1.00001 for c in result.cosines.values() for cosine in c)


def test_next_tokens_that_differ() -> None:
    logits = mx.array([[2.0, 0.0, -2.0], [0.0, 1.0, 0.0]])
    same = NextTokens.between(logits, logits + 5)  # a constant changes no probability
    assert (same.positions, same.same) == (2, 2) and max(same.kl, same.shift) < 1e-5
    other = NextTokens.between(logits, logits[:, ::-1])
    assert other.same == 1 and other.kl == pytest.approx(4 * (0.8668 - 0.0159) / 2, rel=1e-2)


def flip(arrays: dict[str, mx.array], name: str) -> None:
    """One packed weight becomes another: its highest quantised bit changes."""
    packed = arrays[name]
    packed[0, 0] = packed[0, 0] ^ mx.array(1 << 31, mx.uint32)


Q = "model.layers.1.self_attn.q_proj"
DAMAGES: dict[str, tuple[str, Callable[[dict[str, mx.array]], object]]] = {
    f"{Q}.weight is up to": ("model-00001-of-00001", lambda a: flip(a, f"{Q}.weight")),
    "model.norm.weight differs": (
        "model-00001-of-00001",
        lambda a: a.update({"model.norm.weight": a["model.norm.weight"] + 0.01}),
    ),
    "missing lm_head.weight": ("model-00001-of-00001", lambda a: a.pop("lm_head.weight")),
    "unexpected more": ("model-00001-of-00001", lambda a: a.update(more=mx.zeros(1))),
    "not stored in the form": ("model-00001-of-00001", lambda a: a.pop(f"{Q}.scales")),
    "adapter decoder: model.layers.0.mlp.up_proj.lora_a": (
        "adapters/decoder/adapters",
        lambda a: a.pop("model.layers.0.mlp.up_proj.lora_a"),
    ),
    "rows are not exactly": (
        "memory_tokens",
        lambda a: a.update({k: v + 0.01 for k, v in a.items()}),
    ),
}


@pytest.mark.parametrize("problem", DAMAGES)
def test_damage_is_found(folder: Any, source: Source, tmp_path: Path, problem: str) -> None:
    to = shutil.copytree(folder("c16", "e2e", "-q", "8"), tmp_path / "model")
    file, damage = DAMAGES[problem]
    arrays = dict(load_arrays(to / f"{file}.safetensors"))
    mx.eval(arrays)
    damage(arrays)
    mx.save_safetensors(str(to / f"{file}.safetensors"), arrays)
    # A wrong size is found on opening; here the values are what is wrong.
    description = json.loads((to / "clara.json").read_text())
    description["files"] = {}
    (to / "clara.json").write_text(json.dumps(description))
    result = verify(to, source)
    assert any(problem in found for found in result.problems), result.problems


def test_inspect_a_model_folder(folder: Any) -> None:
    described = inspect(folder("c16", "e2e", "-q", "8"))
    assert described["kind"] == "model folder"
    assert described["tensors"]["adapter encoder"]["dtypes"] == {"BF16": 42}
    assert (
        described["tensors"]["base"]["dtypes"]["U32"] == 23
    )  # all matrices: 7 in each of 3 layers, 2 tables
    assert described["config"]["doc_max_length"] == 64


def test_a_flipped_byte_is_found(cli: Any, folder: Any, tmp_path: Path) -> None:
    to = Path(shutil.copytree(folder("c16", "e2e", "-q", "8"), tmp_path / "model"))
    assert "files are as they were made" in cli("inspect", to, "--check").output
    for name in ("model-00001-of-00001.safetensors", "tokenizer.json"):
        raw = bytearray((to / name).read_bytes())
        raw[-9] ^= 1
        (to / name).write_bytes(raw)
        failed = cli("inspect", to, "--check", ok=False)
        assert failed.exit_code == 1 and f"not as it was made: {name};" in failed.output
        raw[-9] ^= 1
        (to / name).write_bytes(raw)


def test_a_folder_from_before_the_hashes_is_read(cli: Any, folder: Any, tmp_path: Path) -> None:
    to = Path(shutil.copytree(folder("c16", "e2e", "-q", "8"), tmp_path / "model"))
    description = json.loads((to / "clara.json").read_text())
    del description["sha256"]
    (to / "clara.json").write_text(json.dumps(description))
    ModelFolder.open(to)
    assert "kept no hashes" in cli("inspect", to, "--check", ok=False).output


def test_inspect_a_checkpoint(golden: Path) -> None:
    described = inspect(golden / "c16/base")
    assert described["kind"] == "checkpoint"
    encoder = described["tensors"]["encoder_adapter"]
    assert encoder["parameters"] == 26880
    assert encoder["also holds"] == ["lm_head.weight", "model.embed_tokens.weight"]
    assert "ae_mode" in described["ignored config fields"]
