"""Which chat template a model folder takes its prompts from, and templates that are of no use."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from chat_templates import TEMPLATES
from counting_folders import ENDLESS
from foreign_bases import make_base
from tiny_models import MOE

from clara_mlx.convert import Source, convert
from clara_mlx.convert import chat_template as of_templates
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.folder import ModelFolder
from clara_mlx.train.config import Fresh
from clara_mlx.train.fresh import Start


@pytest.fixture
def checkpoint(golden: Path, tmp_path: Path) -> Path:
    return shutil.copytree(golden / "c16/e2e", tmp_path / "checkpoint")


def opened(checkpoint: Path, golden: Path) -> Source:
    return Source.open(checkpoint, base=golden / "tiny-base")


def test_the_published_template_is_the_published_layout(checkpoint: Path, golden: Path) -> None:
    """A folder of it has nothing that an older clara-mlx could not read."""
    config = opened(checkpoint, golden).config
    assert config.prompt is None
    assert config.stop_ids == [2]


def test_a_folder_made_before_has_the_published_layout(golden: Path, tmp_path: Path) -> None:
    convert(opened(golden / "c16/e2e", golden), tmp_path / "to")
    file = tmp_path / "to/clara.json"
    described = json.loads(file.read_text())
    assert described["format"] == 1
    for name in ("prompt", "more_stop_ids"):
        del described["config"][name]
    file.write_text(json.dumps(described))
    assert ModelFolder.open(tmp_path / "to").config == opened(golden / "c16/e2e", golden).config


def test_the_checkpoints_template_wins_and_is_copied(
    checkpoint: Path, golden: Path, tmp_path: Path
) -> None:
    (checkpoint / "chat_template.jinja").write_text(TEMPLATES["mistral-v0.3"])
    source = opened(checkpoint, golden)
    assert source.config.layout.begin == (1, "[INST] ")
    assert source.config.layout.end == ("[/INST]",)
    assert source.config.layout.template == "checkpoint"
    assert "prompts have the form of the checkpoint's chat template" in source.notes
    convert(source, tmp_path / "to")
    copied = (tmp_path / "to/chat_template.jinja").read_text()
    assert copied == TEMPLATES["mistral-v0.3"]
    folder = ModelFolder.open(tmp_path / "to")
    assert folder.config == source.config
    assert folder.description["format"] == 2  # an older clara-mlx would put [INST] otherwise


def test_a_thought_that_a_prompt_opens_is_left_out(checkpoint: Path, golden: Path) -> None:
    """The prompt goes on as an answer without a thought does, in training and when it is asked."""
    template = TEMPLATES["chatml"].replace("assistant\n'", "assistant\n<think>\n'")
    assert template != TEMPLATES["chatml"]
    (checkpoint / "chat_template.jinja").write_text(template)
    layout = opened(checkpoint, golden).config.layout
    assert layout.end == ("<|im_end|>\n<|im_start|>assistant\n",)
    assert layout.answer == ()
    # These are no special tokens of this base, so the answer gets an end that is one.
    assert layout.close == ("<|im_end|>\n", 2)


@pytest.mark.parametrize(
    ("template", "problem"),
    {
        "{{ messages[0].content }": "unexpected '}'",
        "{{ raise_exception('no roles here') }}": "no roles here",
        "hello": "leaves out a text",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}": "leaves out a text",
        "{% for m in messages %}{{ m.content * 2 }}{% endfor %}": "leaves out a text",
        "{% for m in messages | reverse %}{{ m.content }}{% endfor %}": "does not follow",
        "{{ messages.__class__.__mro__ }}": "unsafe",
        "{% set n = namespace(x='clara') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
        "{% endfor %}": "takes more than",
        ENDLESS.replace("messages | length > 5", "true"): "does not end within",
    }.items(),
)
def test_a_template_of_no_use_is_refused_in_one_line(
    checkpoint: Path, golden: Path, template: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_templates, "_LONGEST_RENDERING_S", 1.0)
    monkeypatch.setattr(of_templates, "_MOST_RENDERING_BYTES", 32 << 20)
    (checkpoint / "chat_template.jinja").write_text(template)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="can't render CLaRa's prompts") as error:
        opened(checkpoint, golden)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 10


_GRANITE = {
    "model_type": "granite",
    **dict.fromkeys(("logits_scaling", "attention_multiplier", "residual_multiplier"), 1.0),
    **{"embedding_multiplier": 1.0, "attention_bias": False, "mlp_bias": False},
}

UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    (_GRANITE, "takes no embeddings"),
    (MOE, "its layer 1 has no linear mlp.gate_proj for an adapter"),
    ({"model_type": "gpt2"}, "can't build this base"),
    ({"model_type": "no_such"}, "has no model for model_type 'no_such'"),
    ({"model_type": "../llama"}, "has no model for model_type"),
    ({"model_type": 7}, "has no model for model_type 7"),
    ({"quantization_config": {"quant_method": "awq"}}, "already quantised"),
    ({"eos_token_id": None, "model_type": "qwen2"}, "names no eos_token_id"),
    ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "differ by layer"),
]


@pytest.mark.parametrize(("fields", "problem"), UNSUPPORTED)
def test_a_base_that_is_not_supported_is_refused_in_one_line(
    tmp_path: Path, fields: dict[str, Any], problem: str
) -> None:
    base = make_base("qwen2", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | fields))
    (base / "generation_config.json").unlink()
    (base / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError) as error:
        Start.plan(Fresh(base=str(base), doc_max_length=64, lora_r=4), tmp_path / "run", seed=0)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_null_quantisation_is_none(tmp_path: Path) -> None:
    base = make_base("llama3", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": None}))
    fresh = Fresh(base=str(base), doc_max_length=64, lora_r=4)
    folder = ModelFolder.open(Start.plan(fresh, tmp_path / "run", seed=0).write())
    assert isinstance(folder.config, ClaraConfig)
    assert not folder.is_quantised
