"""A base whose config mlx-lm would ignore, or can't run, is refused in one line, and no folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import clara_mlx
from clara_mlx.convert import Source, convert
from clara_mlx.errors import CheckpointError

REFUSED: dict[str, dict[str, Any]] = {
    "rope_scaling must be an object": {"rope_scaling": "linear"},
    "rope_theta must be a number": {"rope_theta": None},
    "Unsupported RoPE type foo": {"rope_scaling": {"rope_type": "foo"}},
    "KeyError: 'factor'": {"rope_scaling": {"type": "linear"}},
    "factor must be a number": {"rope_scaling": {"type": "linear", "factor": 0}},
    "long_factor for short texts": {
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [2.0] * 8,
            "original_max_position_embeddings": 1024,
        }
    },
    "attention_factor": {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 2.0}
    },
    "differ by layer": {
        "rope_parameters": {"full_attention": {"rope_theta": 10000.0, "rope_type": "default"}}
    },
    "no max_position_embeddings": {"max_position_embeddings": None},
    "rms_norm_eps": {"rms_norm_eps": ...},
    "full_attention": {"layer_types": ["sliding_attention"] * 3, "sliding_window": 512},
    "missing model.layers.0.self_attn.q_proj.bias": {"attention_bias": True},
    "missing model.layers.0.mlp.gate_proj.bias": {"mlp_bias": True},
    "hidden_act is 'gelu'": {"hidden_act": "gelu"},
    "partial_rotary_factor is 0.5": {"partial_rotary_factor": 0.5},
    "num_local_experts is 8": {"num_local_experts": 8},
    "but a prompt needs": {"sliding_window": 71},
    "a chunk of the checkpoint has 71 tokens": {"sliding_window": 70},
    "eos_id": {"eos_token_id": {"a": 2}},
    "model_file is": {"model_file": "x.py"},
    "not finite": {"rms_norm_eps": float("nan")},
}


@pytest.fixture
def base(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden / "tiny-base", tmp_path / "base"))


def change(base: Path, fields: dict[str, Any]) -> None:
    config = json.loads((base / "config.json").read_text()) | fields
    kept = {key: value for key, value in config.items() if value is not ...}
    (base / "config.json").write_text(json.dumps(kept))


@pytest.mark.parametrize("reason", REFUSED)
def test_refused_before_anything_is_written(golden: Path, base: Path, reason: str) -> None:
    """When a source is opened; a conversion only begins after that."""
    change(base, REFUSED[reason])
    with pytest.raises(CheckpointError) as error:
        Source.open(golden / "c16/e2e", base=base)
    message = str(error.value)
    assert reason in message
    assert "\n" not in message or "missing" in reason  # a list of tensors has a line for each


RUN: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "llama3": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 1024,
        }
    },
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "harmless fields": {"hidden_act": "swish", "partial_rotary_factor": 1.0},
}


@pytest.mark.parametrize("kind", RUN)
def test_what_mlx_lm_can_run_encodes_a_ragged_batch(
    golden: Path, base: Path, tmp_path: Path, kind: str
) -> None:
    change(base, RUN[kind])
    convert(Source.open(golden / "c16/e2e", base=base), tmp_path / "to", dtype="float32")
    model = clara_mlx.load(tmp_path / "to")
    texts = ["a text", "another text that is longer"]
    latents = model.encode(texts)
    alone = [model.encode(text)[0] for text in texts]
    assert all(float(abs(a - b).max()) < 1e-3 for a, b in zip(alone, latents, strict=True))
    assert isinstance(model.answer("which?", latents, max_tokens=2), str)


def test_dynamic_positions_are_plain_ones_within_the_window(
    golden: Path, base: Path, tmp_path: Path
) -> None:
    """As transformers computes them; a longer prompt is refused anyway."""
    change(base, RUN["dynamic"])
    source = Source.open(golden / "c16/e2e", base=base)
    assert source.base_config["rope_scaling"] == {"rope_type": "default"}
