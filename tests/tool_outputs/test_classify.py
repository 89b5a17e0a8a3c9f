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
