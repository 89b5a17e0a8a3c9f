"""Training by several processes that mlx.launch starts: the losses of one, and how it ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import launched
import mlx.core as mx
import pytest
from sizes import SIZE, sized
from train_runs import CANDIDATES, DOCUMENTS, QUESTIONS, losses, metrics, train, write_config

from clara_mlx.errors import ClaraError
from clara_mlx.model.folder import ModelFolder
from clara_mlx.model.ranks import Ranks
from clara_mlx.train.run import Run
from clara_mlx.train.together import check_work_for_all

# Dropout on; three micro-batches of unequal size, which two ranks can't halve.
OPTIONS: dict[str, Any] = {
    "steps__batch_size": 5,
    "steps__micro_batch_size": 2,
    "steps__most": 50,
    "steps__save_every": 2,
    "steps__evaluate_every": 4,
    "steps__evaluation_answers": 3,
    "steps__answer_tokens": 3,
    "data__questions_per_document": 2,
    "method__dropout": 0.1,
    "optimiser__learning_rate": 1e-3,
}
MORE = [
    {"docs": [text], "question": f"What is number {i}?", "answer": f"number {i} " * (1 + i % 3)}
    for i, text in enumerate(["shard 7 moved", "limit 64", "def sub(a, b)", "timeout 3 s"])
]
STAGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "instruct": ([*QUESTIONS, *MORE], {}),
    "end-to-end": (CANDIDATES * 2, {"data__questions_per_document": 1}),
    "retrieval": (CANDIDATES * 2, {"method__in_batch_negatives": True}),
    "distil": ([{"docs": [text]} for text in [*DOCUMENTS, "a = 1", "b = 2"]], {}),
}
# By default only the run that is killed is launched: its steps until then are compared, too.
launches = pytest.mark.skipif(SIZE == "small", reason="each launch takes seconds")


def config(root: Path, folder: Any, stage: str, **fields: Any) -> Path:
    examples, own = STAGES[stage]
    model = folder("c16", "e2e" if stage in ("end-to-end", "retrieval") else "instruct")
    if stage == "distil":
        model, own = folder("c16", "e2e", "-q", "4"), {"teacher": str(folder("c16", "e2e"))}
    return write_config(root, model, examples, stage=stage, **{**OPTIONS, **own, **fields})


@pytest.mark.alone
@launches
@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_have_the_losses_of_one(folder: Any, tmp_path: Path, stage: str) -> None:
    alone, both = (config(tmp_path / name, folder, stage) for name in ("alone", "both"))
    train(alone)
    output = launched.run(tmp_path, "train", both)
    assert output.count("checkpoint: ") == 1  # one of them says what was made
    for one, other in zip(metrics(alone), metrics(both), strict=True):
        assert one["step"] == other["step"]
        for name in ("loss", "tokens", "learning_rate"):
            assert other.get(name) == pytest.approx(one.get(name), abs=1e-5), (one["step"], name)
        norm = pytest.approx(one.get("gradient_norm"), rel=1e-4)  # near a minimum it is small
        assert other.get("gradient_norm") == norm, one["step"]
        assert other.get("evaluation") == pytest.approx(one.get("evaluation"), abs=1e-5)
    first, second = (ModelFolder.open(tmp_path / name / "run/model") for name in ("alone", "both"))
    for adapter in first.adapters:
        for name, array in first.adapter(adapter).items():
            assert mx.allclose(array, second.adapter(adapter)[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.alone
@pytest.mark.parametrize("killed", sized([1], [0, 1]))
def test_one_rank_killed_ends_the_run_and_nothing_is_lost(
    folder: Any, tmp_path: Path, killed: int
) -> None:
    whole, broken = (
        config(tmp_path / name, folder, "instruct", steps__most=6) for name in ("whole", "broken")
    )
    train(whole)
    log = tmp_path / "broken/run/metrics.jsonl"
    process = launched.launch(tmp_path, "train", broken)
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        time.sleep(0.005)
    os.kill(launched.pid_of(tmp_path, killed), signal.SIGKILL)
    began = time.monotonic()
    _, errors = launched.finish(process)
    assert time.monotonic() - began < 10
    assert "another rank has ended" in errors or "another rank has failed" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "broken/run/model").exists()
    if SIZE == "full":
        launched.run(tmp_path, "train", broken)
    else:  # another number of ranks may go on, too
        train(broken)
    assert [step for step, _ in losses(broken)] == [step for step, _ in losses(whole)]
    for one, other in zip(losses(whole), losses(broken), strict=True):
        assert other == pytest.approx(one, abs=1e-5)


@pytest.mark.alone
@launches
def test_a_rank_with_other_examples_is_refused(folder: Any, tmp_path: Path) -> None:
    """Each machine has its own copy of what is read."""
    for rank in ("0", "1"):
        config(tmp_path / rank, folder, "instruct", seed=int(rank))
    examples = (tmp_path / "0/examples.jsonl").read_text()
    (tmp_path / "1/examples.jsonl").write_text(examples.replace("parser", "reader"))
    _, errors = launched.finish(launched.launch(tmp_path, "train", tmp_path / "{rank}/train.toml"))
    assert "rank 1 has another run than rank 0: different are the config, the examples;" in errors
    assert not (tmp_path / "0/run").exists()


@pytest.mark.alone
@launches
def test_a_fresh_start_is_written_once(golden: Path, tmp_path: Path) -> None:
    fresh = {"base": str(golden / "tiny-base"), "doc_max_length": 64, "dtype": "float32"}
    fields = {f"fresh__{name}": value for name, value in fresh.items()}
    for ranks in (1, 2):
        file = write_config(tmp_path / str(ranks), None, QUESTIONS, **{**OPTIONS, **fields})
        if ranks == 1:
            train(file)
        else:
            launched.run(tmp_path, "train", file)
    for (_, one), (_, other) in zip(
        losses(tmp_path / "1/train.toml"), losses(tmp_path / "2/train.toml"), strict=True
    ):
        assert other == pytest.approx(one, abs=1e-5)


def test_more_ranks_than_micro_batches_are_refused(folder: Any, tmp_path: Path) -> None:
    file = config(tmp_path, folder, "instruct", steps__micro_batch_size=5)
    plan = Run.open(file).trainer.plan
    with pytest.raises(ClaraError, match="at most 1 micro-batches, but there are 2 ranks"):
        check_work_for_all(Ranks(0, 2), plan)


def test_alone_there_is_one_rank() -> None:
    ranks = Ranks.join()
    assert ranks == Ranks(rank=0, size=1) and ranks.is_first
    assert ranks.share([1, 2, 3]) == [1, 2, 3]
    assert Ranks(1, 3).share(range(8)) == range(1, 8, 3)
