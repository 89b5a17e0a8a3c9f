"""Compressors are found by their names: ours, and those of other installed packages."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from house import ROOT

from clara_mlx.compressors import registry
from clara_mlx.compressors.compressor import Compressor, is_latent, is_textual
from clara_mlx.errors import CheckpointError, ClaraError
from clara_mlx.model.clara import Clara


def test_pyproject_lists_ours() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][registry.GROUP] == registry.OURS


def test_ours_can_be_found() -> None:
    for name in registry.OURS:
        assert callable(registry.find(name))


def test_an_unknown_name_lists_those_known() -> None:
    with pytest.raises(ClaraError, match="no compressor 'nonesuch'; known here: clara"):
        registry.open_compressor("nonesuch")


def test_a_model_folder_says_whose_it_is(folder: Callable[..., Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folder("c4", "e2e"), tmp_path / "model")
    compressor: Compressor = registry.load(copy)  # it says nothing, so it is CLaRa's
    assert type(compressor) is Clara
    assert is_latent(compressor) and not is_textual(compressor)
    assert registry.open_compressor("clara", copy).fingerprint == compressor.fingerprint
    description = copy / "clara.json"
    content = json.loads(description.read_text()) | {"compressor": "nonesuch"}
    description.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="another kind: there is no compressor 'nonesuch'"):
        registry.load(copy)
    with pytest.raises(ClaraError, match="a model folder of nonesuch, not of clara"):
        registry.open_compressor("clara", copy)


def test_a_model_is_asked_for_where_one_is_needed() -> None:
    with pytest.raises(ClaraError, match="clara needs a model"):
        registry.open_compressor("clara")
