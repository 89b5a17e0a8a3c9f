"""Settings from the environment: one table is what the docs, the options and the readers say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from golden_files import ROOT
from typer.main import get_command

from clara_mlx.cli.app import app
from clara_mlx.compymac import Settings
from clara_mlx.memory import settings
from clara_mlx.memory.settings import Setting

SETTINGS = [value for value in vars(settings).values() if isinstance(value, Setting)]

#: The table of docs/SETTINGS.md: variable, value, default, read by, what it sets.
ROWS = re.findall(
    r"^\| `(CLARA_MLX_\w+)` \| (.+?) \| (.*?) \| (.+?) \| (.+?) \|$",
    (ROOT / "docs/SETTINGS.md").read_text(),
    re.MULTILINE,
)
READERS = {name: readers for name, _, _, readers, _ in ROWS}


def test_the_page_has_the_table() -> None:
    assert [(name, default, purpose) for name, _, default, _, purpose in ROWS] == [
        (s.name, s.default and f"`{s.default}`", s.purpose) for s in SETTINGS
    ]


def test_options_with_a_variable_are_in_the_table() -> None:
    settings = {setting.name: setting for setting in SETTINGS}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for option in command.params:
            if option.envvar:
                setting, readers = settings[option.envvar], READERS[option.envvar]
                assert f"`{option.opts[-1]}` of " in readers, (name, option.envvar)
                assert option.help.startswith(setting.purpose)
                assert f"`{name}`" in readers or "every command" in readers
                assert str(option.default or "") in ("", setting.default)


def test_every_variable_of_the_product_is_in_the_table() -> None:
    """A name that the product's code says anywhere is one that somebody can look up."""
    known = {setting.name for setting in SETTINGS}
    for file in (ROOT / "clara_mlx").rglob("*.py"):
        assert set(re.findall(r"CLARA_MLX_[A-Z_]+", file.read_text())) <= known, file


def test_compymac_reads_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.name, raising=False)
    assert Settings.from_env() == Settings()
    values = {
        name: "7" if kind == "tokens" else f"a {kind}"
        for name, kind, _, readers, _ in ROWS
        if "CompyMac" in readers
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    read = Settings.from_env()
    assert read == Settings(
        memory=Path("a file or URL"),
        model="a folder or hub id",
        compressor="a name",
        reasoner=Path("a folder"),
        session="a name",
        tool_output_tokens=7,
    )
    monkeypatch.setenv("CLARA_MLX_MEMORY", "postgresql://db.example/team")
    assert Settings.from_env().memory == "postgresql://db.example/team"
