"""Which tool printed an output, by its command."""

from __future__ import annotations

import pytest
from real_outputs import (
    GCC,
)

from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.rules import facts


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        ("cd repo && python -m pytest -q tests 2>&1 | tail -20", "pytest"),
        ("FOO=1 timeout 60 pytest", "pytest"),
        ("uv run ruff check .", "ruff"),
        ("git -C repo diff --stat", "git-diff"),
        ("git log --oneline | head", "git-log"),
        ("grep -rn foo src", "ripgrep"),
        ("cat config/app.toml", "toml"),
        ("head -20 .env", "env"),
        ("/usr/bin/ls -l", "ls"),
        ("python script.py", None),
        ("", None),
        ("echo 'unbalanced", None),
    ],
)
def test_classify_by_command(command: str, tool: str | None) -> None:
    assert classify("nothing that says more", command) == tool


def test_make_is_what_it_ran() -> None:
    assert classify(GCC, "make") == "gcc"
    assert classify("make: *** [Makefile:4: all] Error 1", "make") == "build"
    assert facts("nothing that says more") == facts("x", "no such tool") == ()


@pytest.mark.parametrize("tool", ["env", "yaml"])
@pytest.mark.parametrize("begins", ["\n" * 5_000, "# x\n\n\n" * 5_000, "\r\n" * 5_000])
def test_blank_lines_and_comments_may_come_first(tool: str, begins: str) -> None:
    """However many there are: each can be read in one way only."""
    text = {"env": "HOST=a\nPORT=1\n", "yaml": "server:\n  host: a\n  port: 1\n"}[tool]
    assert classify(begins[:15_000] + "no sign") is None
    assert classify(begins[:600] + text) == tool
