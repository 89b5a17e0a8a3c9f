"""ClaraConfig: what is read, what is reported, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden_files import VARIANTS, expected

from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig

REQUIRED = {
    "doc_max_length": 64,
    "compr_rate": 16,
    "lora_r": 8,
    "hidden_size": 64,
    "base_vocab_size": 643,
    "window": 4096,
}
WHERE = "some/config.json"


def read(**changes: Any) -> ClaraConfig:
    return ClaraConfig.from_dict({**REQUIRED, **changes}, where=WHERE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_ids_are_the_reference_s(golden: Path, variant: str) -> None:
    raw = json.loads((golden / variant / "e2e" / "config.json").read_text())
    config = ClaraConfig.from_dict({**REQUIRED, **raw}, where=WHERE)
    ids = expected(variant)["token_ids"]
    assert config.memory_ids == ids["mem"]
    assert config.memory_tokens == len(ids["mem"])
    assert (config.enc_id, config.sep_id) == (ids["enc"], ids["sep"])
    assert (config.bos_id, config.eos_id) == (ids["bos"], ids["eos"])
    assert config.vocab_size == ids["vocab_after_resize"]
    assert config.added_tokens.index("<AE>") + config.base_vocab_size == ids["ae"]
    assert config.training_stage == "stage2"


def test_one_memory_token_for_all() -> None:
    config = read(different_mem_tokens=False)
    assert config.added_tokens == ["<MEM>", "<AE>", "<ENC>", "<SEP>"]
    assert config.memory_ids == [643] * 4
    assert (config.enc_id, config.sep_id, config.vocab_size) == (645, 646, 647)


@pytest.mark.parametrize(("rate", "rows"), [(16, 32019), (128, 32005)])
def test_published_sizes(rate: int, rows: int) -> None:
    config = read(doc_max_length=256, compr_rate=rate, base_vocab_size=32000)
    assert config.memory_tokens == 256 // rate
    assert config.vocab_size == rows


def test_memory_tokens_are_rounded_down() -> None:
    assert read(doc_max_length=100, compr_rate=33).memory_tokens == 3


def test_written_and_read_again_it_is_the_same() -> None:
    config = read(compr_rate=4, sep=False, training_stage="stage1", bos_id=0)
    assert ClaraConfig.from_dict(json.loads(json.dumps(config.to_dict())), where=WHERE) == config


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(field: str) -> None:
    raw = {name: value for name, value in REQUIRED.items() if name != field}
    with pytest.raises(CheckpointError, match=rf"^{WHERE}: .* it has no {field}$"):
        ClaraConfig.from_dict(raw, where=WHERE)


def test_all_missing_fields_are_named() -> None:
    with pytest.raises(CheckpointError, match=f"it has no {', '.join(REQUIRED)}$"):
        ClaraConfig.from_dict({"model_type": "mistral"}, where=WHERE)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("doc_max_length", "256", "must be of type int, got '256'"),
        ("doc_max_length", 256.0, r"must be of type int, got 256\.0"),
        ("compr_rate", True, "must be of type int, got True"),
        ("window", None, "must be of type int, got None"),
        ("sep", 1, "must be of type bool, got 1"),
        ("training_stage", None, "must be of type str, got None"),
        ("compr_rate", 0, "must be positive, got 0"),
        ("lora_r", -8, "must be positive, got -8"),
        ("base_vocab_size", 0, "must be positive, got 0"),
        ("compr_rate", 65, "leaves 0 memory tokens"),
        ("doc_max_length", 2**40, "memory tokens"),
        ("bos_id", -1, "-1 is not in the base vocabulary"),
        ("eos_id", 643, "643 is not in the base vocabulary"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, problem: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^{WHERE}: .*{field}.*{problem}"):
        read(**{field: value})
