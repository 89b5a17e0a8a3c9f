"""The model folder on disk: what is read, and what is said about a damaged one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import clara_mlx
from clara_mlx.errors import CheckpointError, ClaraError
from clara_mlx.model.folder import LAYOUT, ModelFolder


@pytest.fixture
def copy(folder: Any, tmp_path: Path) -> Path:
    return shutil.copytree(folder("c16", "e2e"), tmp_path / "model")


def test_the_layout_is_what_is_written(copy: Path) -> None:
    written = {str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file()}
    adapters = ("decoder", "encoder", "query_reasoner")
    assert written == {
        LAYOUT.clara,
        LAYOUT.config,
        LAYOUT.index,
        LAYOUT.memory_tokens,
        LAYOUT.tokenizer,
        LAYOUT.weights.format(1, 1),
        *(LAYOUT.adapter.format(name) for name in adapters),
        *(LAYOUT.adapter_config.format(name) for name in adapters),
        "generation_config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    }
    recorded = ModelFolder.open(copy).description["files"]
    assert {LAYOUT.clara, *recorded} == written


def test_a_folder_can_be_moved_and_its_source_forgotten(copy: Path, clara: Any) -> None:
    moved = copy.rename(copy.with_name("elsewhere"))
    assert clara_mlx.load(str(moved)).fingerprint == clara("c16", "e2e").fingerprint


@pytest.mark.parametrize(
    "name", ["model-00001-of-00001.safetensors", "adapters/encoder/adapters.safetensors"]
)
def test_missing_and_truncated_files_are_named(copy: Path, name: str) -> None:
    file = copy / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{name} has \d+ bytes instead of \d+"):
        clara_mlx.load(copy)
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        clara_mlx.load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": LAYOUT.format + 1}, "update clara-mlx"),
        ({"format": "1"}, "format '1'"),
        ({"config": {}}, "it has no doc_max_length"),
        ({"config": None}, "damaged"),
        ({"dtype": "int8"}, "damaged"),
        ({"adapters": ["../../etc"]}, "damaged"),
        ({"adapters": None}, "damaged"),
    ],
)
def test_a_description_that_is_wrong(copy: Path, changes: dict[str, Any], message: str) -> None:
    description = json.loads((copy / LAYOUT.clara).read_text())
    (copy / LAYOUT.clara).write_text(json.dumps(description | changes))
    with pytest.raises(CheckpointError, match=message):
        clara_mlx.load(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format":', "\ud800".encode("utf-8", "replace")])
@pytest.mark.parametrize("name", [LAYOUT.clara, LAYOUT.config])
def test_json_that_is_not(copy: Path, name: str, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    description = json.loads((copy / LAYOUT.clara).read_text())
    description["files"].pop(LAYOUT.config)
    (copy / LAYOUT.clara).write_text(json.dumps(description))
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        clara_mlx.load(copy)


def test_weights_that_do_not_fit_the_config(copy: Path) -> None:
    config = json.loads((copy / LAYOUT.config).read_text())
    text = json.dumps(config | {"num_hidden_layers": 4})
    description = json.loads((copy / LAYOUT.clara).read_text())
    description["files"][LAYOUT.config] = len(text)
    (copy / LAYOUT.config).write_text(text)
    (copy / LAYOUT.clara).write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"layers\.3"):
        clara_mlx.load(copy)


def test_not_a_model_folder(tmp_path: Path, golden: Path) -> None:
    for path in (tmp_path, golden / "c16/e2e"):
        with pytest.raises(ClaraError, match="clara-mlx convert"):
            clara_mlx.load(path)
