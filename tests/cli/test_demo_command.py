"""`clara-mlx demo` as it is typed, and what is said where a package is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.cli.extras import what_to_install

Cli = Callable[..., Any]


def test_nothing_of_yours_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = cli("demo", "--keep", tmp_path, ok=False)
    assert result.exit_code == 1 and "not an empty folder" in result.output
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_extra_that_is_missing_is_named(tmp_path: Path) -> None:
    """The whole program, in a Python that finds no uvicorn."""
    hide = "import sys; sys.modules['uvicorn'] = None; from clara_mlx.cli.app import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", hide, "serve", "--db", str(tmp_path / "m.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "clara-mlx: this needs uvicorn, which is not installed: pip install 'clara-mlx[serve]'"
    ]


@pytest.mark.parametrize("name", ["nobody_knows_it", "clara_mlx.nothing"])
def test_other_missing_modules_are_not_explained_away(name: str) -> None:
    assert what_to_install(ModuleNotFoundError(name=name)) is None
