"""The trainer: it learns, by any route to the same gradient, on any kind of base."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from train_runs import CANDIDATES, QUESTIONS, losses, metrics, train, write_config

import clara_mlx
from clara_mlx.errors import ClaraError
from clara_mlx.train.config import EXAMPLE, read_config
from clara_mlx.train.parameters import ROWS, Parameters
from clara_mlx.train.run import Run
from clara_mlx.train.step import Schedule, Stepper, add


def gradient(folder: Path, model: Path, examples: Any, **fields: Any) -> tuple[float, Parameters]:
    """Loss and gradient of a run's first step."""
    trainer = Run.open(write_config(folder, model, examples, **fields)).trainer
    stepper = Stepper(trainer.clara, trainer.config, trainer.parameters)
    collator = trainer._collator(trainer.plan.train_set)
    step = next(trainer.plan.all_steps())
    total, sums = 0.0, None
    for i, micro in enumerate(step):
        batch, _ = collator.arrays(micro, collator.totals(step))
        loss, _, found = stepper.gradient(trainer.parameters, batch, mx.random.key(i))
        total += loss.item()
        sums = found if sums is None else add(sums, found)
    assert sums is not None
    return total, sums


def close(a: tuple[float, Parameters], b: tuple[float, Parameters]) -> None:
    assert abs(a[0] - b[0]) <= 2e-5
    for (name, x), (other, y) in zip(tree_flatten(a[1]), tree_flatten(b[1]), strict=True):
        assert name == other
        assert mx.abs(x - y).max() <= 1e-4 * mx.maximum(mx.abs(y).max(), 1e-3), name


def test_four_examples_are_learnt_to_exact_answers(folder: Any, tmp_path: Path) -> None:
    start = folder("c16", "instruct")
    file = write_config(
        tmp_path,
        start,
        QUESTIONS,
        steps__most=16,
        data__questions_per_document=2,
        method__dropout=0.0,
        method__mse_weight=0.0,
    )
    train(file)
    course = [loss for _, loss in losses(file)]
    assert course[-1] < 0.1 * course[0]
    assert metrics(file)[-1]["evaluation"]["exact"] == 1
    model = clara_mlx.load(tmp_path / "run/model")
    for record in QUESTIONS:
        latents = model.encode(record["docs"])
        questions, answers = record["question"], record.get("answers", record.get("answer"))
        if isinstance(questions, str):
            questions, answers = [questions], [answers]
        for question, answer in zip(questions, answers, strict=True):
            assert model.answer(question, latents, 12) == answer


@pytest.mark.parametrize("stage", ["end-to-end", "retrieval"])
def test_the_query_reasoner_learns(folder: Any, tmp_path: Path, stage: str) -> None:
    """From a model without one: it starts as a copy of the encoder, whose choices are poor."""
    options = {"steps__most": 6, "method__dropout": 0.0}
    file = write_config(tmp_path, folder("c16", "instruct"), CANDIDATES, stage=stage, **options)
    run = train(file)
    course = [loss for _, loss in losses(file)]
    assert course[-1] < 0.5 * course[0]
    if stage == "retrieval":  # end-to-end, the decoder can also learn the answers by heart
        assert metrics(file)[-1]["evaluation"]["recall"] == 1
    assert "query_reasoner" in clara_mlx.load(tmp_path / "run/model").adapters
    # The encoder, and with it every stored latent, stays as it was.
    before = clara_mlx.load(run.folder.path).encode("worker limit 16")
    assert mx.array_equal(clara_mlx.load(tmp_path / "run/model").encode("worker limit 16"), before)


@pytest.mark.parametrize("stage", ["instruct", "end-to-end", "retrieval"])
def test_accumulation_gives_the_gradient_of_the_whole_batch(
    folder: Any, tmp_path: Path, stage: str
) -> None:
    """Answers of different lengths count by their tokens, whatever micro-batch they are in."""
    model, examples = folder("c16", "e2e"), QUESTIONS if stage == "instruct" else CANDIDATES
    options = {"stage": stage, "method__dropout": 0.0, "method__mse_weight": 0.0}
    whole = gradient(tmp_path / "a", model, examples, steps__micro_batch_size=4, **options)
    parts = gradient(tmp_path / "b", model, examples, steps__micro_batch_size=1, **options)
    close(whole, parts)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_checkpointing_and_compiling_change_nothing(
    folder: Any, tmp_path: Path, dropout: float
) -> None:
    options = {"method__dropout": dropout, "method__memory_rows": True}
    start = folder("c16", "instruct")
    plain = gradient(tmp_path / "a", start, QUESTIONS, **options)
    again = gradient(
        tmp_path / "b", start, QUESTIONS, method__gradient_checkpointing=True, **options
    )
    close(plain, again)
    if not dropout:  # once is enough: the first compilation takes seconds
        close(plain, gradient(tmp_path / "c", start, QUESTIONS, method__compile=True, **options))
    assert mx.abs(plain[1][ROWS]["embed_tokens.weight"]).max().item() > 0


def test_dropout_follows_the_key_and_is_off_in_evaluation(folder: Any, tmp_path: Path) -> None:
    start = folder("c16", "instruct")
    with_it = gradient(tmp_path / "a", start, QUESTIONS, method__dropout=0.5)
    assert with_it[0] == gradient(tmp_path / "b", start, QUESTIONS, method__dropout=0.5)[0]
    without = gradient(tmp_path / "c", start, QUESTIONS, method__dropout=0.0)
    assert abs(with_it[0] - without[0]) > 0.01


def test_documents_shared_by_questions_are_encoded_once(folder: Any, tmp_path: Path) -> None:
    """The same loss as with each question's document on its own, apart from the mse's mean."""
    apart = [{**QUESTIONS[0], "question": [q], "answers": [a]} for q, a in
             zip(QUESTIONS[0]["question"], QUESTIONS[0]["answers"], strict=True)]  # fmt: skip
    options = {"method__dropout": 0.0, "method__mse_weight": 0.0, "steps__batch_size": 2}
    start = folder("c16", "instruct")
    together = gradient(tmp_path / "a", start, apart, data__questions_per_document=2, **options)
    close(together, gradient(tmp_path / "b", start, apart, steps__micro_batch_size=1, **options))


@pytest.mark.parametrize("bits", ["8", "4"])
def test_qlora(folder: Any, tmp_path: Path, bits: str) -> None:
    """A quantised base stays as it is; the adapters and the memory rows learn on it."""
    start = folder("c16", "instruct", "-q", bits, "--group-size", "32")
    options = {"steps__most": 5, "method__dropout": 0.0, "method__memory_rows": True}
    file = write_config(tmp_path, start, QUESTIONS, **options)
    run = Run.open(file)
    weight = run.trainer.clara.network.model.layers[0].mlp.up_proj.linear.weight
    before = mx.array(weight)
    run.train()
    assert weight.dtype == mx.uint32 and mx.array_equal(weight, before)
    course = [loss for _, loss in losses(file)]
    assert course[-1] < 0.6 * course[0]
    clara_mlx.load(tmp_path / "run/model").answer("What limit?", mx.zeros((1, 4, 64)), 2)


def test_an_adapter_can_start_anew(folder: Any, tmp_path: Path) -> None:
    """As the reference starts the decoder of stage1_2: B zero, so the decoder is the base."""
    file = write_config(
        tmp_path, folder("c16", "instruct"), QUESTIONS, method__reset=["decoder"], steps__most=1
    )
    clara = Run.open(file).trainer.clara
    ids = mx.array([[1, 5, 9]])
    with clara.lora.use("decoder"):
        reset = clara.network.model(ids)
    assert mx.array_equal(reset, clara.network.model(ids))
    with clara.lora.use("encoder"):
        assert not mx.array_equal(reset, clara.network.model(ids))


def test_a_loss_that_is_not_finite_ends_the_run(folder: Any, tmp_path: Path) -> None:
    file = write_config(
        tmp_path, folder("c16", "instruct"), QUESTIONS, optimiser__learning_rate=1e30
    )
    with pytest.raises(ClaraError, match=r"step \d: the loss is (nan|inf)"):
        train(file)


# -- schedule and config -------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.floats(0, 0.5), st.floats(0, 1))
def test_cosine_schedule(steps: int, warmup: float, least: float) -> None:
    """transformers' cosine_with_min_lr: up in a line from 0, down in half a cosine to the least."""
    rates = [Schedule(2.0, steps, "cosine", warmup, least).at(step) for step in range(steps)]
    warm = math.ceil(steps * warmup)
    for step, rate in enumerate(rates):
        if step < warm:
            assert rate == pytest.approx(2 * step / warm)
        else:
            cosine = 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
            assert rate == pytest.approx(2 * (cosine * (1 - least) + least))
    assert Schedule(2.0, steps, "constant").at(0) == 2.0


def test_the_example_is_a_config(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text(EXAMPLE)
    config = read_config(file)
    assert config.data.train == [str(tmp_path / "train.jsonl")]
    assert config.model == "clara-base"  # not a folder here, so it may be a hub id
    assert (config.learning_rate, config.mse_weight, config.trains_rows) == (1e-4, 0.1, False)


# (top-level lines, tables) -> what is wrong
BAD = {
    ('stage = "stage1"', ""): "stage 'stage1' is not one of scp",
    ("seed = true", ""): "seed must be of type int, got True",
    ("speed = 1", ""): "unknown: speed; known are stage",
    ("", '[data]\ntrain = "x"'): "data.train must be a list",
    ("", "[steps]\nbatch_size = 0"): "steps.batch_size must be above 0",
    ("", "[steps]\nbatchsize = 4"): "unknown: steps.batchsize",
    ("", '[optimiser]\nschedule = "linear"'): "optimiser.schedule is 'linear', but must be one of",
    ("", '[fresh]\nbase = "x"'): "either model or",
    ("", '[method]\nreset = ["query_reasoner"]'): "stage instruct trains only encoder, decoder",
    ("", "[method]\ndropout = 1.0"): "method.dropout",
    ("", '[data]\ntrain = ["x"]\nquestions_per_document = 99'): "more than steps.micro_batch_size",
    ("", "[steps"): "Expected",
}


@pytest.mark.parametrize("change", BAD)
def test_configs_that_are_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    top, tables = change
    lines = ['model = "m"', 'output = "run"', top]
    if not top.startswith("stage"):
        lines.append('stage = "instruct"')
    if "[data]" not in tables:
        lines.append('[data]\ntrain = ["x.jsonl"]')
    file = tmp_path / "train.toml"
    file.write_text("\n".join([*lines, tables]))
    with pytest.raises(ClaraError, match=BAD[change]) as error:
        read_config(file)
    assert str(error.value).startswith(str(file))


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text('stage = "instruct"')
    with pytest.raises(ClaraError, match="output is missing"):
        read_config(file)
