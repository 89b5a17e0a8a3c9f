"""Compressors are found by their names: ours, and those of other installed packages."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from house import ROOT

from clara_mlx.compressors import registry
from clara_mlx.compressors.baselines import Bm25Lines
from clara_mlx.compressors.compressor import Compressor, is_latent, is_textual
from clara_mlx.errors import CheckpointError, ClaraError
from clara_mlx.memory import Memory
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


def install(folder: Path, package: str, names: Sequence[str] = ("first-lines",)) -> None:
    """Install tests/compressors/first_lines.py into a folder, as an installer lays a wheel out."""
    shutil.copy(Path(__file__).parent / "first_lines.py", folder)
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = first_lines:FirstLines" for name in names]
    (about / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))


def test_a_compressor_of_another_package_is_found_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "first_lines")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "first-lines" in registry.names()
    compressor = registry.open_compressor("first-lines")
    text = "the first line\nthe second line\n" + "and more of them\n" * 20
    with Memory.open(tmp_path / "m.db", compressor) as memory:
        handle = memory.remember(text)
        memory.flush(60)
        assert memory.status().made_by == {"first-lines": 1}
        assert memory.shortened(handle).startswith("the first line\nthe second line\nand more")
        assert len(memory.shortened(handle)) <= len(text) / 4 + 4
    db = ("--db", tmp_path / "m.db", "--compressor", "first-lines")
    found = json.loads(cli("recall", "second", *db, "--json").stdout)
    assert found[0]["handle"] == handle
    asked = json.loads(cli("ask", "the second line", *db, "--json").stdout)
    assert asked["text"] == memory_text(text, compressor) and not asked["answered"]
    status = cli("status", "--db", tmp_path / "m.db").stdout
    assert "first-lines: 1" in status


def memory_text(text: str, compressor: Any) -> str:
    """What a memory keeps of a text of one chunk."""
    size = len(compressor.tokens.encode(text))
    kept: str = compressor.shorten(text, -(-size // 4), compressor.tokens)
    return kept.removesuffix("\n")


def test_what_packages_bring_does_not_replace_ours_and_must_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("one", "two"):
        (tmp_path / package).mkdir()
        install(tmp_path / package, package, ["first-lines", "bm25", package])
        monkeypatch.syspath_prepend(tmp_path / package)
    assert type(registry.open_compressor("bm25")) is Bm25Lines
    assert registry.open_compressor("one").name == "first-lines"
    with pytest.raises(ClaraError, match="several packages have a compressor 'first-lines': "):
        registry.open_compressor("first-lines")


def test_a_package_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "broken")
    (tmp_path / "broken-1.0.dist-info/entry_points.txt").write_text(
        f"[{registry.GROUP}]\nbroken = no_such_module_here:It\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ClaraError, match=r"'broken' \(no_such_module_here:It\) can't be loaded"):
        registry.open_compressor("broken")
