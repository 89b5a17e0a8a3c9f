"""``clara-mlx train``: the plan, a run, and what it prints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from train_runs import QUESTIONS, write_config
from typer.testing import CliRunner

from clara_mlx.cli import train as command
from clara_mlx.cli.train import commands
from clara_mlx.errors import ClaraError
from clara_mlx.model.folder import ModelFolder
from clara_mlx.train.config import read_config


def run(*args: object) -> str:
    result = CliRunner().invoke(commands, ["train", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def config(folder: Any, tmp_path: Path) -> Path:
    return write_config(tmp_path, folder("c16", "instruct"), QUESTIONS, steps__most=2)


def test_the_example_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text(run("--example"))
    assert read_config(file).stage == "instruct"


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text(run("--example"), encoding="utf-8-sig")
    assert read_config(file).stage == "instruct"


def test_dry_run_prints_the_plan_and_leaves_no_trace(config: Path) -> None:
    plan = json.loads(run(config, "--dry-run", "--json"))
    assert (plan["steps"], plan["examples"], plan["documents"]) == (2, 4, 3)
    assert plan["trained"] == {"encoder": 26880, "decoder": 26880}
    text = run(config, "--dry-run")
    assert "steps: 2" in text and "decoder 26,880" in text
    assert not (config.parent / "run").exists()


def test_a_run(config: Path) -> None:
    result = json.loads(run(config, "--json"))
    assert result["step"] == 2 and result["evaluation"]["answers"] == 4
    ModelFolder.open(result["model"])
    assert (Path(result["checkpoint"]) / "adapters.pth").is_file()
    # Given again, it says the same: there is nothing left to do.
    assert json.loads(run(config, "--json"))["model"] == result["model"]


def test_a_run_without_a_terminal_says_how_far_it_is(config: Path) -> None:
    done = CliRunner().invoke(commands, ["train", str(config)], catch_exceptions=False)
    first, last = done.stderr.splitlines()
    assert re.fullmatch(r"step 1 of 2: loss \d+\.\d{4}, [\d,]+ tokens/s", first)
    assert re.fullmatch(r"step 2 of 2: loss .* tokens/s; evaluation: loss .*, exact .*", last)


def test_lines_about_a_run_come_every_half_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(command.time, "monotonic", lambda: now)
    with command._step_progress() as on_step:
        for step in range(1, 101):
            on_step({"step": step, "loss": 1.0, "tokens_per_second": 9.0}, 1000)
            now += 10.0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 34 and lines[0].startswith("step 1 of 1,000")
    assert lines[1].endswith("step 4 of 1,000: loss 1.0000, 9 tokens/s, about 2 h 46 min left")


def test_errors_name_file_and_line(config: Path) -> None:
    with (config.parent / "examples.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ClaraError, match=r"examples.jsonl:4: no list of documents"):
        run(config)


LOG = [
    {"role": "tool", "content": "FAILED tests/test_a.py::test_b - KeyError\n1 failed in 0.1s\n"},
    {"role": "tool", "content": "PORT=8443\nGITHUB_TOKEN=" + "gh" + "p_" + "a1B2" * 9 + "\n"},
    {"role": "tool", "content": "nothing to ask"},
]


def test_examples_from_logs_can_be_trained_on(config: Path, tmp_path: Path) -> None:
    log, to = tmp_path / "log.jsonl", tmp_path / "examples.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in LOG))
    arguments = [log, "--to", to, "--stage", "instruct", "--json", "--force"]
    done = CliRunner().invoke(commands, ["examples", *map(str, arguments)], catch_exceptions=False)
    result = json.loads(done.output)
    assert (result["outputs"], result["documents"], result["secrets_masked"]) == (3, 2, 1)
    assert result["records"] == result["questions"] == len(to.read_text().splitlines()) > 2
    assert "a1B2" not in to.read_text()
    plan = json.loads(run(config, "--dry-run", "--json"))  # reads examples.jsonl
    assert plan["documents"] == 2


def test_examples_do_not_replace_a_file_unasked(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(LOG[0]) + "\n")
    with pytest.raises(ClaraError, match="already exists; name another file, or use --force"):
        CliRunner().invoke(
            commands, ["examples", str(log), "--to", str(log)], catch_exceptions=False
        )
    with pytest.raises(ClaraError, match="NO_SUCH_KEY: this environment variable is not set"):
        CliRunner().invoke(
            commands,
            ["examples", str(log), "--to", str(tmp_path / "new"), "--key", "NO_SUCH_KEY"],
            catch_exceptions=False,
        )
    assert log.read_text() == json.dumps(LOG[0]) + "\n"
