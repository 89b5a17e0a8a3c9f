"""docs/COMPRESSORS.md: its five commands work, and so does the compressor that it adds."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from house import ROOT
from sizes import sized

from clara_mlx.compressors import registry
from clara_mlx.compressors.compressor import ESTIMATE
from clara_mlx.errors import Progress
from clara_mlx.evaluate import comparison
from clara_mlx.evaluate.contender import Contender, measure
from clara_mlx.evaluate.contender_process import measure_apart
from clara_mlx.evaluate.exam import Exam

PAGE = (ROOT / "docs/COMPRESSORS.md").read_text(encoding="utf-8")


def block(heading: str, language: str, number: int = 0) -> str:
    """A block of code below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return str(re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[number])


def _measure_here(one: Contender, exam: Path, progress: Progress | None = None) -> dict[str, Any]:
    return measure(one, Exam.from_json(json.loads(exam.read_text())), progress)


def test_every_compressor_of_ours_is_on_the_page() -> None:
    named = set(re.findall(r"^\| `([\w-]+)` \| ", PAGE, re.MULTILINE))
    assert named == set(registry.OURS)


def test_from_logs_to_a_compressor_in_five_commands(
    cli: Callable[..., Any], golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand there; by default with a smaller model, and a single small step."""
    commands = block("From your own logs to your own compressor", "console").splitlines()
    config = block("From your own logs to your own compressor", "toml")
    nano = "scripts/nano/clara-nano"
    swapped = {f"{nano}/checkpoint": golden / "c16/e2e", f"{nano}/base": golden / "tiny-base"}
    swapped = sized(swapped, {})
    for name in ("docs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    small = config.replace("most = 20", "most = 1").replace("batch_size = 8", "batch_size = 2")
    quick = "micro_batch_size = 2\nevaluation_answers = 1\n\n[method]\ncompile = false\n"
    small = small.replace("most = 1\n", f"most = 1\n{quick}")
    (tmp_path / "train.toml").write_text(sized(small, config))
    monkeypatch.chdir(tmp_path)
    # By default all compressors are measured in this process, which takes less time.
    monkeypatch.setattr(comparison, "measure_apart", sized(_measure_here, measure_apart))
    assert len(commands) == 5 and all(line.startswith("$ clara-mlx ") for line in commands)
    for line in commands:
        words = [str(swapped.get(word, word)) for word in shlex.split(line)[2:]]
        few = ["--max-tokens", 1, "--most", 2, "--rates", 4] if words[0] == "evaluate" else []
        cli(*words, *sized(few, []))
    report = json.loads((tmp_path / "report" / "compressors.json").read_text())
    labels = [each["label"] for each in report["compressors"]]
    assert labels == ["start", "mine/model", "extractive", "bm25"]
    assert report["sets"]["own"]["questions"] >= sized(4, 30)
    start, mine = report["compressors"][:2]
    assert start["fingerprint"] != mine["fingerprint"]  # it has learned something


def test_a_compressor_takes_one_file_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own file and line, as an installed package, found by another process."""
    (tmp_path / "first_lines.py").write_text(block("Add a compressor", "python"))
    (point,) = re.findall(r'^([\w-]+) = "(.+)"$', block("Add a compressor", "toml"), re.MULTILINE)
    installed = tmp_path / "first_lines-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: first-lines\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{point[0]} = {point[1]}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = registry.open_compressor("first-lines")
    assert made.shorten("one\ntwo\nthree\n", 2, ESTIMATE) == "one\ntwo\n"  # type: ignore[union-attr]
    command = [sys.executable, "-m", "clara_mlx.cli", "evaluate", "--compressor", "first-lines"]
    command += ["--sets", "brief", "--documents", "1", "--no-html", "--to", str(tmp_path / "out")]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "first-lines" in done.stdout and "1/8 of the tokens" in done.stdout
