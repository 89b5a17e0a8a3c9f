"""What the manual tells people to type is understood, and where it can be, it is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from clara_mlx.cli.app import app
from clara_mlx.cli.renamed import renew

ROOT = Path(__file__).parents[2]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
}

#: Pages whose commands are run, all of a page in one shell.
RUN = ("README.md", "docs/MEMORY.md", "docs/QUICKSTART.md", "docs/BROWSING.md", "docs/PYTHON.md")

#: Commands that are only read, by how they begin, and what runs them.
ONLY_READ = {
    "clara-mlx connect": "tests/agents",
    "clara-mlx convert": "tests/convert; the weights can't be had here",
    "clara-mlx demo": "tests/demo",
    "clara-mlx doctor": "tests/agents/test_doctor.py",
    "clara-mlx serve": "tests/cli/test_serve_command.py",
    "clara-mlx ui": "tests/serve/inspector",
    "clara-mlx work --db postgresql": "tests/store/contract, tests/serve/test_team.py",
    "pip install": "the release workflow, on a fresh machine",
}

#: Pages whose Python is only compiled, and what runs it.
ONLY_COMPILED = {
    "docs/AGENTS.md": "tests/serve, with both SDKs",
    "docs/BROWSING.md": "tests/serve/test_bookkeeping.py",
    "docs/BULK.md": "tests/compressors/test_bulk.py",
    "docs/COMPRESSORS.md": "tests/evaluate/test_guide.py",
    "docs/COMPYMAC.md": "tests/compymac, which need CompyMac",
    "docs/GATEWAY.md": "tests/compymac",
    "docs/LCLM.md": "tests/compressors, on small checkpoints",
    "docs/LLMLINGUA2.md": "tests/compressors, on small checkpoints",
}

_BLOCK = re.compile(r"(?ms)^```(\w+)\n(.*?)^```")
_HANDLE = re.compile(r"\bm-[0-9a-f]{10}\b|\bm-1f2e3d4c5b6a\b")


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(PAGES[page]) if kind == language]


def typed(page: str) -> Iterator[str]:
    """The commands of a page: lines after ``$``, with those that go on on the next line."""
    for block in blocks(page, "console"):
        lines = iter(block.splitlines())
        for line in lines:
            if line.startswith("$ "):
                command = line[2:]
                while command.endswith("\\") or command.count('"') % 2:
                    command = f"{command.removesuffix(chr(92))}\n{next(lines)}"
                yield command


def calls(command: str) -> Iterator[list[str]]:
    """The arguments of each `clara-mlx` in a command line."""
    lexer = shlex.shlex(command.replace("$(", " ; ").replace("\n", " "), posix=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    lexer.wordchars += "$"
    words: list[str] = []
    for word in [*lexer, ";"]:
        ends = word in (";", "|", "&&", ">", "2>&1", "||") or word.endswith(";")
        if not ends:
            words.append(word.rstrip(")"))
            continue
        if "clara-mlx" in words:
            yield words[words.index("clara-mlx") + 1 :]
        words = []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page: str) -> None:
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    for command in typed(page):
        for name, *words in calls(command):
            assert renew([name, *words])[1] == []  # no old name
            commands[name].make_context(name, list(words))  # raises if an option is unknown


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, folder: Callable[..., Path]) -> Path:
    """A folder as a reader of the manual may have it: a small project, and a model."""
    work = tmp_path_factory.mktemp("reader")
    (work / "clara-7b-q8").symlink_to(folder("c16", "e2e"))
    (work / "tests").mkdir()
    (work / "tests" / "test_io.py").write_text("def test_load():\n    assert False\n")
    (work / "pytest.log").write_text("FAILED tests/test_io.py::test_load - assert False\n" * 9)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(work))
    for words in (("init", "-q"), ("add", "tests"), ("commit", "-qm", "tests")):
        subprocess.run([*git, *words], check=True)
    (work / "bin").mkdir()
    (work / "bin" / "clara-mlx").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m clara_mlx.cli "$@"\n'
    )
    (work / "bin" / "clara-mlx").chmod(0o755)
    return work


def environment(work: Path) -> dict[str, str]:
    path = f"{work / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    home = {"HOME": str(work / "home"), "PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    ours = {name for name in os.environ if name.startswith("CLARA_MLX_")}
    return {name: value for name, value in os.environ.items() if name not in ours} | home


@pytest.mark.parametrize("page", RUN)
def test_commands_run(page: str, work: Path) -> None:
    def line(command: str) -> str:
        command = _HANDLE.sub("$HANDLE", command)
        if "| clara-mlx remember" in command and not command.startswith("H="):
            command = f"HANDLE=$({command})"
        return command

    wanted = [one for one in typed(page) if not one.startswith(tuple(ONLY_READ))]
    first = "HANDLE=$(echo 'KeyError colour: failed' | clara-mlx remember -s pytest)"
    script = "\n".join(["set -eu", first, *map(line, wanted)])
    done = subprocess.run(
        ["bash", "-c", script], cwd=work, env=environment(work), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    assert "is called" not in done.stderr


def test_python_runs_as_it_is_written(work: Path) -> None:
    for page in PAGES:
        code = "\n".join(blocks(page, "python"))
        compile(code, page, "exec")
        if not code or page in ONLY_COMPILED:
            continue
        code = "output = 'tests/test_io.py::test_load FAILED'\n" + code
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=work,
            env=environment(work),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{page}: {done.stderr}"
