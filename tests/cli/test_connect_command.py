"""The commands around agents: connect, and remember --from."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.agents.known import AGENTS

SESSIONS = Path(__file__).parents[1] / "agents/data/sessions"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, in which Codex has been used."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CODEX_HOME", "CLAUDE_CONFIG_DIR", "XDG_CONFIG_HOME", "CLARA_MLX_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex/config.toml").write_text('model = "gpt"\n')
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A gateway that answers; what it was asked with."""
    found: list[Any] = []

    def ask_models(url: str, token: str | None) -> tuple[str, int]:
        found.append((url, token))
        return "served", 65_536

    monkeypatch.setattr("clara_mlx.agents.asking.ask_models", ask_models)
    return found


def test_connecting_and_back(cli: Any, home: Path, asked: list[Any]) -> None:
    file = home / ".codex/config.toml"
    plan = cli("connect", "codex", "--print").stdout
    assert '+model = "served"' in plan and file.read_text() == 'model = "gpt"\n'
    done = cli("connect", "codex", "--endpoint", "http://127.0.0.1:8100/v1/").stdout
    assert "connected to http://127.0.0.1:8100 (served, 65,536 tokens)" in done
    assert asked[-1] == ("http://127.0.0.1:8100", None)
    listed = json.loads(cli("connect", "--json").stdout)
    assert [one["name"] for one in listed] == list(AGENTS)
    states = {one["name"]: one for one in listed}
    assert states["codex"]["connected"] == "http://127.0.0.1:8100"
    assert "is as it should be" in cli("connect", "codex").stdout
    assert "-model_provider" in cli("connect", "codex", "--remove", "--print").stdout
    removed = json.loads(cli("connect", "codex", "--remove", "--json").stdout)
    assert [one["change"] for one in removed["files"]] == ["edit"]
    assert file.read_text() == 'model = "gpt"\n'
    assert sorted(path.name for path in home.rglob("*")) == [".codex", "config.toml"]


def test_where_the_token_is(
    cli: Any, home: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "token").write_text("of-a-file\n")
    monkeypatch.setenv("MY_TOKEN", "of-a-variable")
    monkeypatch.setenv("CLARA_MLX_TOKEN", "of-the-gateway")
    for given, token in (
        (("--token", f"@{home}/token"), "of-a-file"),
        (("--token", "${MY_TOKEN}"), "of-a-variable"),
        (("--token", "itself"), "itself"),
        ((), "of-the-gateway"),
    ):
        result = cli("connect", "codex", "--print", *given)
        assert asked[-1][1] == token and token not in result.output
    for wrong in (f"@{home}/none", "$NOT_SET"):
        assert "--token: " in cli("connect", "codex", "--token", wrong, ok=False).stderr


def test_a_gateway_that_does_not_answer(cli: Any, home: Path) -> None:
    nowhere = ("connect", "codex", "--endpoint", "http://127.0.0.1:9")
    result = cli(*nowhere, ok=False)
    assert result.exit_code == 1 and "start `clara-mlx serve` first" in result.stderr
    cli(*nowhere, "--window", 32_768)
    assert "model_context_window" in (home / ".codex/config.toml").read_text()
    assert "is not a URL" in cli("connect", "codex", "--endpoint", "8100", ok=False).stderr
    assert "not connected" in cli("connect", "claude", "--remove", ok=False).stderr


def test_remembering_what_agents_have_on_disk(cli: Any, home: Path) -> None:
    shutil.copytree(SESSIONS, home, dirs_exist_ok=True)
    db = home / "memory.db"
    given = ("remember", "--from", "claude", "--db", db)
    plan = json.loads(cli(*given, "--dry-run", "--json").stdout)
    assert plan["new"] == 16 and len(plan["sessions"]) == 2 and not db.exists()
    assert "remembered: 16 texts" in cli(*given).stdout
    assert (
        "remembered: 0 texts" in cli("remember", "--from", SESSIONS / ".claude", "--db", db).stdout
    )
    assert re.search("remembered: 8 texts", cli("remember", "--from", "qwen", "--db", db).stdout)
    assert "neither a path nor an agent" in cli("remember", "--from", "emacs", ok=False).stderr
    assert "no sessions" in cli("remember", "--from", "opencode", "--db", db, ok=False).stderr
    for wrong in (("--from", "claude", "-s", "x"), ("--dry-run",), ("--mask",)):
        assert cli("remember", *wrong, ok=False).exit_code == 2
