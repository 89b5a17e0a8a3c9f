"""Fixtures: the golden data, its checkpoints converted once by the real CLI, and a memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lclm_files
import postgres
import pytest
from golden_files import GOLDEN
from token_classifiers import make_checkpoint
from typer.testing import CliRunner

import clara_mlx
from clara_mlx.cli.app import app
from clara_mlx.compressors.llmlingua2.llmlingua2 import LlmLingua2
from clara_mlx.compymac import Settings
from clara_mlx.compymac.settings import close_shared
from clara_mlx.memory import Memory


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden folder."""
    return GOLDEN


@pytest.fixture(scope="session")
def cli() -> Callable[..., Any]:
    """Run the command line in this process; fails the test if it fails, unless ``ok=False``."""

    def run(*args: object, ok: bool = True, **kwargs: Any) -> Any:
        result = CliRunner().invoke(app, [str(arg) for arg in args], **kwargs)
        if ok and result.exit_code:
            raise AssertionError(f"clara-mlx {args}: {result.output}") from result.exception
        return result

    return run


@pytest.fixture(scope="session")
def folder(
    cli: Callable[..., Any], golden: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Model folder of a golden checkpoint: ``folder("c16", "e2e", "-q", "8")``; else float32."""
    root = tmp_path_factory.mktemp("models")

    @functools.cache
    def convert(variant: str, checkpoint: str, *options: str) -> Path:
        to = root / "-".join((variant, checkpoint, *options))
        options = options or ("-q", "none", "--dtype", "float32")
        source = golden / variant / checkpoint
        cli("convert", source, "--base", golden / "tiny-base", "--to", to, *options)
        return to

    return convert


@pytest.fixture(scope="session")
def clara(folder: Callable[..., Path]) -> Callable[..., clara_mlx.Clara]:
    """A loaded golden checkpoint: ``clara("c16", "e2e")``."""
    return functools.cache(lambda *args: clara_mlx.load(folder(*args)))


@pytest.fixture(scope="session")
def lclm_folder(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Model folder of a golden LCLM checkpoint: ``lclm_folder("c16", "-q", "8")``; else float32."""
    root = tmp_path_factory.mktemp("lclm")

    @functools.cache
    def convert(variant: str, *options: str) -> Path:
        to = root / "-".join((variant, *options))
        options = options or ("-q", "none", "--dtype", "float32")
        cli("convert", lclm_files.checkpoint(variant), "--to", to, *options)
        return to

    return convert


@pytest.fixture(scope="session")
def lclm(lclm_folder: Callable[..., Path]) -> Callable[..., Any]:
    """A loaded golden LCLM checkpoint: ``lclm("c16")``."""
    return functools.cache(lambda *args: clara_mlx.load(lclm_folder(*args)))


@pytest.fixture(scope="session")
def llmlingua2(
    cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., LlmLingua2]:
    """A loaded tiny encoder: ``llmlingua2("bert", "-q", "8")``; in float32 without options."""
    root = tmp_path_factory.mktemp("llmlingua2")

    @functools.cache
    def load(kind: str, *options: str) -> LlmLingua2:
        source = make_checkpoint(kind, root / kind)
        to = root / "-".join((kind, "folder", *options))
        cli("convert", source, "--to", to, *(options or ("-q", "none", "--dtype", "float32")))
        loaded: LlmLingua2 = clara_mlx.load(to)
        return loaded

    return load


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of a new database in a real PostgreSQL, with the tables of an empty memory."""
    with postgres.new_database() as url:
        yield url


@pytest.fixture
def empty_postgres_url() -> Iterator[str]:
    """The URL of a new database in a real PostgreSQL, with nothing in it."""
    with postgres.new_database(empty=True) as url:
        yield url


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    """An empty memory without a model."""
    with Memory.open(tmp_path / "memory.db") as opened:
        yield opened


@pytest.fixture
def compymac_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An environment of our own; the memory that it names is closed afterwards."""
    for name in ("MODEL", "REASONER", "SESSION", "TOOL_OUTPUT_TOKENS"):
        monkeypatch.delenv(f"CLARA_MLX_{name}", raising=False)
    monkeypatch.setenv("CLARA_MLX_MEMORY", str(tmp_path / "memory.db"))
    yield Settings.from_env()
    close_shared()
