"""The manual builds without a warning, and no link of it or of the README is dead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from clara_mlx.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench" / "README.md"]
PAGES += [ROOT / "llms.txt", *sorted((ROOT / "docs").glob("*.md"))]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"(?m)^#+ (.+)$")


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked to, as GitHub and MkDocs make them."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in _HEADING.findall(text))
    return {re.sub(r"\s", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target)
        ):
            dead.append(link)
    assert not dead


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.skipif(
    not find_spec("mkdocs"), reason="mkdocs is not installed: pip install '.[docs]'"
)
def test_the_manual_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "WARNING  -" not in result.stderr
    assert "memory of a coding agent" in (tmp_path / "index.html").read_text()


def test_the_skill_can_be_found_and_its_commands_are_understood() -> None:
    """Its front matter says when it is of use, and every option in it is one."""
    skill = ROOT / "skills" / "clara-mlx" / "SKILL.md"
    _, front, body = skill.read_text(encoding="utf-8").split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["name"] == skill.parent.name
    assert len(about["description"]) <= 1024 and "Use it" in about["description"]
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    said = re.findall(r"clara-mlx ([a-z]+)([^`\n|#)]*)", body)
    assert len(said) > 8
    for name, rest in said:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<= )--?[a-z-]+", rest)) <= options, (name, rest)


def test_the_skills_story_happens(tmp_path: Path) -> None:
    """Keep an output, find it, get a part of it back: by the commands that it gives."""
    (tmp_path / "clara-mlx").write_text(f'#!/bin/sh\nexec {sys.executable} -m clara_mlx.cli "$@"\n')
    (tmp_path / "clara-mlx").chmod(0o755)
    script = """
H=$(printf 'one\\ntest_load FAILED\\n' | clara-mlx remember -s pytest)
clara-mlx search test_load -s pytest
clara-mlx original "$H" | grep -n FAILED
clara-mlx ask "Which test failed?" -s pytest --compressor extractive
"""
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CLARA_MLX_MEMORY": str(tmp_path / "m.db"),
    }
    done = subprocess.run(
        ["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2:test_load FAILED" in done.stdout and done.stdout.count("test_load") > 2
