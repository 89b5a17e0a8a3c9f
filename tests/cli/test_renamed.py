"""Options that were renamed: the old name works, and says what it is called now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from clara_mlx.cli.app import app
from clara_mlx.cli.renamed import RENAMED, renew

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [(command, *pair) for command, pairs in RENAMED.items() for pair in pairs.items()],
)
def test_every_new_name_is_an_option_and_no_old_one_is(command: str, old: str, new: str) -> None:
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    options = {option for parameter in commands[command].params for option in parameter.opts}
    assert new in options and old not in options
    assert renew([command, old, "x"])[0] == [command, new, "x"]
    words, notes = renew([command, f"{old}={old}", "--", old])
    assert words == [command, f"{new}={old}", "--", old]
    assert notes == [f"{command} {old} is called {new} now"]


def test_other_words_stay_as_they_are() -> None:
    for words in ([], ["--help"], ["recall", "--url", "x"], ["serve", "--reasoner-api", "chat"]):
        assert renew(words) == (words, [])


def test_an_old_name_still_works(cli: Cli) -> None:
    words = ("plan", "--memory", 64, "--reasoner", "Qwen3-32B", "--json")
    old = cli(*words, "--clara", "none")
    assert old.stderr == "clara-mlx: plan --clara is called --model now\n"
    assert json.loads(old.stdout) == json.loads(cli(*words, "--model", "none").stdout)


def test_a_model_where_it_was_and_where_it_is_now(
    cli: Cli, folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = folder("c16", "e2e"), tmp_path / "out.txt"
    file.write_text("1 failed")
    old = cli("compress", model, file, "--json")
    assert "takes its model as --model MODEL now" in old.stderr
    new = cli("compress", file, "--model", model, "--json")
    monkeypatch.setenv("CLARA_MLX_MODEL", str(model))
    assert old.stdout == new.stdout == cli("compress", file, "--json").stdout
    assert not new.stderr
    monkeypatch.delenv("CLARA_MLX_MODEL")
    for command in ("compress", "bench"):
        result = cli(command, *([file] if command == "compress" else []), ok=False)
        assert result.exit_code == 1 and "CLARA_MLX_MODEL" in result.stderr


def test_an_export_where_it_was(cli: Cli, tmp_path: Path) -> None:
    db = ("--db", tmp_path / "m.db")
    cli("remember", *db, input="a text\n")
    old = cli("export", *db, "-s", "x", tmp_path / "old.jsonl")
    assert "takes its file as --to FILE now" in old.stderr
    cli("export", *db, "-s", "x", "--to", tmp_path / "new.jsonl")
    assert (tmp_path / "old.jsonl").read_text() == (tmp_path / "new.jsonl").read_text()
