from __future__ import annotations

import getpass
import json
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import capture as module
import pytest
from capture import (
    LEAST_CHARACTERS,
    MOST_CHARACTERS,
    MOST_PROBES,
    ask_again,
    capture,
    write,
)
from capture_commands import REPOSITORY_COMMANDS

from clara_mlx.evaluate.sets import Captured, CaptureError, read_captured
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.rules import RULES
from clara_mlx.tool_outputs.secrets import mask

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "clara_mlx" / "evaluate" / "captured.jsonl"


@pytest.fixture(scope="module")
def snapshot() -> list[Captured]:
    return read_captured(SNAPSHOT)


def test_the_snapshot_is_large_and_varied(snapshot: list[Captured]) -> None:
    assert len(snapshot) >= 150
    assert sum(len(one.probes) for one in snapshot) >= 500
    assert SNAPSHOT.stat().st_size < 600_000
    tools = Counter(one.tool for one in snapshot)
    assert len(tools) >= 15
    assert max(tools.values()) < len(snapshot) / 4
    assert len({one.text for one in snapshot}) == len(snapshot)


def test_tools_and_sizes(snapshot: list[Captured]) -> None:
    for one in snapshot:
        assert one.tool in RULES
        assert classify(one.text, one.command) == one.tool, one.command
        assert 0 < len(one.probes) <= MOST_PROBES
        assert LEAST_CHARACTERS <= len(one.text) <= MOST_CHARACTERS


def test_the_snapshot_tells_nothing_of_the_machine(snapshot: list[Captured]) -> None:
    for one in snapshot:
        text = one.text + one.command
        assert mask(one.text) == (one.text, [])
        assert str(Path.home()) not in text or str(Path.home()) == "/"
        assert str(ROOT) not in text
        for folder in one.rewritten:
            assert folder in one.text
        if getpass.getuser() != "root":
            assert f" {getpass.getuser()} " not in one.text


def test_a_capture_on_this_machine(tmp_path: Path) -> None:
    repository = tmp_path / "checkout"
    repository.mkdir()
    (repository / "README.md").write_text("# A project\n")
    for words in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=Someone Real", "-c", "user.email=real@host", "commit", "-qm", "Begin"],
    ):
        subprocess.run(["git", *words], cwd=repository, check=True)
    captured = capture(repository, tools=("git-log", "json", "http"))
    tools = Counter(one.tool for one in captured)
    assert tools["git-log"] >= 10
    assert tools["json"] >= 2
    everything = " ".join(one.text for one in captured)
    assert "Someone Real" not in everything
    assert "Contributor 1" in everything
    assert str(tmp_path) not in everything
    for one in captured:
        assert one.probes


def test_the_commands_name_files_of_the_repository() -> None:
    named = {word for line in REPOSITORY_COMMANDS for word in shlex.split(line) if "/" in word}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_a_program_that_is_missing_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = module.Command("ls", ".", "no-such-program-here -l")
    monkeypatch.setattr(module, "prepare_commands", lambda *_: iter([command]))
    assert capture(tmp_path, tools=("ls",)) == []


def test_the_probes_are_those_of_the_rules(snapshot: list[Captured]) -> None:
    # If a wording or a rule has changed: python bench/capture/capture.py --questions-only
    assert ask_again(snapshot) == snapshot


def test_write_and_read(tmp_path: Path, snapshot: list[Captured]) -> None:
    write(snapshot[:3], tmp_path / "some.jsonl")
    assert read_captured(tmp_path / "some.jsonl") == snapshot[:3]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"tool": "ls", "probes": [{}], "rewritten": []}']
)
def test_a_damaged_line_is_named(tmp_path: Path, snapshot: list[Captured], line: str) -> None:
    file = tmp_path / "some.jsonl"
    write(snapshot[:1], file)
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(CaptureError, match=r"some\.jsonl:2: "):
        read_captured(file)
    with pytest.raises(CaptureError, match=r"missing\.jsonl"):
        read_captured(tmp_path / "missing.jsonl")


def test_lines_are_plain_json() -> None:
    for line in SNAPSHOT.read_text(encoding="utf-8").splitlines():
        assert set(json.loads(line)) == {"tool", "text", "probes", "command", "rewritten"}
