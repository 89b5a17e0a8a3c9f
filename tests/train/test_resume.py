"""Killed at any step and started again, a run comes to the losses that it would have had."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from train_runs import QUESTIONS, losses, metrics, train, write_config

from clara_mlx.errors import ClaraError
from clara_mlx.model.folder import ModelFolder
from clara_mlx.train.run import Run

CHILD = """
import sys
from pathlib import Path
from clara_mlx.train.run import Run
Run.open(Path(sys.argv[1])).train()
"""
# Dropout on, so that its masks have to come back as well.
OPTIONS = {
    "steps__batch_size": 2,
    "steps__micro_batch_size": 1,
    "steps__most": 6,
    "steps__save_every": 2,
    "steps__evaluate_every": 3,
    "steps__evaluation_answers": 1,
    "steps__answer_tokens": 2,
    "method__dropout": 0.1,
}


def run_and_kill(file: Path, after: int) -> None:
    """Start a run in a process of its own and kill it when its metrics have that many lines."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(file)])
    log = file.parent / "run" / "metrics.jsonl"
    while child.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= after):
        time.sleep(0.005)
    assert child.poll() is None, "the run ended before it could be killed"
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.alone
def test_sigkill_and_the_same_losses(folder: Any, tmp_path: Path) -> None:
    model = folder("c16", "instruct")
    whole = write_config(tmp_path / "whole", model, QUESTIONS, **OPTIONS)
    train(whole)
    killed = write_config(tmp_path / "killed", model, QUESTIONS, **OPTIONS)
    run_and_kill(killed, after=1)  # before the first state
    run_and_kill(killed, after=5)
    assert not (tmp_path / "killed/run/model").exists()
    train(killed)
    assert losses(killed) == losses(whole)
    assert [line["step"] for line in metrics(killed)] == [1, 2, 3, 3, 4, 5, 6, 6]
    timing = {"tokens_per_second", "seconds"}
    for a, b in zip(metrics(killed), metrics(whole), strict=True):
        assert {**a, **dict.fromkeys(timing)} == {**b, **dict.fromkeys(timing)}
    a, b = (ModelFolder.open(tmp_path / name / "run/model") for name in ("killed", "whole"))
    for adapter in ("encoder", "decoder"):
        for name, array in a.adapter(adapter).items():
            assert mx.array_equal(array, b.adapter(adapter)[name])
    assert a.fingerprint == b.fingerprint != ModelFolder.open(model).fingerprint


def test_a_finished_run_is_not_trained_again(folder: Any, tmp_path: Path) -> None:
    file = write_config(tmp_path, folder("c16", "instruct"), QUESTIONS, steps__most=2)
    train(file)
    before = metrics(file)
    train(file)
    assert metrics(file) == before
    states = sorted(path.name for path in (tmp_path / "run").glob("*.safetensors"))
    assert states == ["state-00000002.safetensors"]


def test_lines_after_the_state_and_half_lines_are_dropped(folder: Any, tmp_path: Path) -> None:
    file = write_config(
        tmp_path, folder("c16", "instruct"), QUESTIONS, steps__most=3, steps__save_every=1
    )
    train(file)
    before = losses(file)
    (tmp_path / "run/state-00000003.safetensors").unlink()
    with (tmp_path / "run/metrics.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    train(file)
    assert losses(file) == before


def test_a_full_disk_leaves_the_states_before_it(
    folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"steps__most": 3, "steps__save_every": 1}
    file = write_config(tmp_path, folder("c16", "instruct"), QUESTIONS, **options)
    save = mx.save_safetensors

    def fail(file: Any, arrays: Any, metadata: Any) -> None:
        if metadata["step"] == "2":
            raise OSError(28, "No space left on device")
        save(file, arrays, metadata)

    monkeypatch.setattr(mx, "save_safetensors", fail)
    with pytest.raises(ClaraError, match=r"state-00000002.*No space left"):
        train(file)
    monkeypatch.undo()
    states = (path.name for path in (tmp_path / "run").glob("*state*"))
    assert list(states) == ["state-00000001.safetensors"]
    train(file)
    assert [step for step, _ in losses(file)] == [1, 2, 3]


def test_another_config_does_not_go_on_there(folder: Any, tmp_path: Path) -> None:
    model = folder("c16", "instruct")
    train(write_config(tmp_path, model, QUESTIONS, steps__most=1))
    with pytest.raises(ClaraError, match=r"another config \(seed\)"):
        train(write_config(tmp_path, model, QUESTIONS, steps__most=1, seed=1))
    # How often it is saved changes nothing that is computed.
    train(write_config(tmp_path, model, QUESTIONS, steps__most=1, steps__save_every=7))
    recorded = json.loads((tmp_path / "run/config.json").read_text())
    assert recorded["steps"]["save_every"] == 7


def edit(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


def test_changed_examples_are_noticed(folder: Any, tmp_path: Path) -> None:
    model = folder("c16", "instruct")
    options = {"steps__most": 2, "steps__save_every": 1}
    file = write_config(tmp_path, model, QUESTIONS, **options)
    train(file)
    data, before = tmp_path / "examples.jsonl", losses(file)
    edit(data, "the parser", "elsewhere")
    refused = r"run: holds a run for which this was different: .*examples.jsonl; put it back"
    with pytest.raises(ClaraError, match=refused):  # nothing is left to do, but it says so
        train(file)
    (tmp_path / "run/state-00000002.safetensors").unlink()
    with pytest.raises(ClaraError, match=refused):
        train(file)
    edit(data, "elsewhere", "the parser")
    data.write_bytes(data.read_bytes().replace(b"\n", b"\r\n"))  # the lines are the same
    train(file)
    assert losses(file) == before


def test_another_model_in_the_same_place_is_noticed(folder: Any, tmp_path: Path) -> None:
    model = shutil.copytree(folder("c16", "instruct"), tmp_path / "model")
    file = write_config(tmp_path, model, QUESTIONS, steps__most=1)
    train(file)
    shutil.rmtree(model)
    shutil.copytree(folder("c16", "e2e"), model)
    with pytest.raises(ClaraError, match="different: the model that the run starts from"):
        train(file)


def test_an_older_run_without_hashes_goes_on(folder: Any, tmp_path: Path) -> None:
    file = write_config(tmp_path, folder("c16", "instruct"), QUESTIONS, steps__most=1)
    train(file)
    record = tmp_path / "run/config.json"
    recorded = json.loads(record.read_text())
    del recorded["read"]
    record.write_text(json.dumps(recorded))
    notes: list[str] = []
    Run.open(file).train(say=notes.append)
    assert len(notes) == 1 and "kept no hash" in notes[0]
    Run.open(file).train(say=notes.append)
    assert len(notes) == 1
    edit(tmp_path / "examples.jsonl", "the parser", "elsewhere")
    with pytest.raises(ClaraError, match=r"examples\.jsonl"):
        train(file)


def test_a_damaged_state_is_passed_over(folder: Any, tmp_path: Path) -> None:
    options = {"steps__most": 2, "steps__save_every": 1, "steps__evaluation_answers": 0}
    file = write_config(tmp_path, folder("c16", "instruct"), QUESTIONS, **options)
    train(file)
    before = losses(file)
    older, newest = sorted((tmp_path / "run").glob("state-*"))
    whole = newest.read_bytes()
    for damaged in (whole[: len(whole) // 2], b""):
        newest.write_bytes(damaged)
        notes: list[str] = []
        Run.open(file).train(say=notes.append)
        (note,) = notes
        assert "state-00000002" in note and "going on from step 1" in note and "\n" not in note
        assert losses(file) == before
    for state in (older, newest):
        state.write_bytes(b"")
    with pytest.raises(ClaraError, match=r"state-00000002.*state-00000001.*train again"):
        train(file)


def test_two_processes_cannot_train_in_one_folder(folder: Any, tmp_path: Path) -> None:
    file = write_config(tmp_path, folder("c16", "instruct"), QUESTIONS, steps__most=2)
    run = Run.open(file)

    def second(line: dict[str, Any], steps: int) -> None:
        with pytest.raises(ClaraError, match="another process"):
            run.trainer.run()

    run.train(second)
