"""`clara-mlx train`, and `clara-mlx examples`, which makes examples to train on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clara_mlx.cli.notes import is_quiet, note
from clara_mlx.cli.output import Json, emit, progress_bar
from clara_mlx.cli.ranks import explain_termination
from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from clara_mlx.train.trainer import OnStep

commands = typer.Typer()

_SECONDS = 30.0  # between the lines about a run whose standard error is no terminal


@commands.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; `--example` prints one.")] = Path(
        "train.toml"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data and print the plan; write nothing.")
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Print an example config.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model's adapters: the stages scp, instruct, end-to-end and retrieval.

    `clara-mlx train --example > train.toml`, then `clara-mlx train train.toml`

    After any interruption, the same command continues from the newest saved state and gets to the
    same losses. The config's `output` folder gets `metrics.jsonl`, a model folder `model/`, and
    `checkpoint/`, which is the same model in Hugging Face's layout.

    On several Macs: `mlx.launch --hostfile macs.json -- clara-mlx train train.toml`. Each computes
    a part of every step; the losses are those of one process.
    """
    from clara_mlx.train.config import EXAMPLE

    if example:
        if as_json:
            emit({"example": EXAMPLE}, [], as_json)
        else:
            typer.echo(EXAMPLE, nl=False)
        return
    if not config.exists():
        raise ClaraError(
            f"{config}: there is no such file; `clara-mlx train --example > {config}` writes one "
            "to start from"
        )
    from clara_mlx.model.ranks import Ranks
    from clara_mlx.train.run import Run, describe

    ranks = Ranks.join()
    if dry_run:
        if not ranks.is_first:
            return
        plan = describe(config)
        writes = plan.get("writes", {})
        lines = _format({name: value for name, value in plan.items() if name != "writes"})
        lines += [f"would write: {path} ({size / 1e6:,.1f} MB)" for path, size in writes.items()]
        emit(plan, lines, as_json)
        return
    with explain_termination(ranks, "the newest state of the run is kept"):
        run = Run.open(config, ranks)
        plan = run.trainer.describe()
        with _step_progress() if ranks.is_first else nullcontext() as on_step:
            result = run.train(on_step, _note)
    if ranks.is_first:
        emit(plan | result, _format(result), as_json)


@commands.command()
def examples(
    logs: Annotated[
        list[Path],
        typer.Argument(help="SWE-agent .traj files, chat messages (JSON, JSONL), CompyMac runs."),
    ],
    to: Annotated[Path, typer.Option(help="The JSON lines file to write.")],
    stage: Annotated[
        Literal["scp", "instruct", "retrieval", "end-to-end"],
        typer.Option(help="The stage that will read the examples."),
    ] = "instruct",
    candidates: Annotated[
        int | None,
        typer.Option(min=1, help="Documents per question (1; retrieval and end-to-end: 5)."),
    ] = None,
    characters: Annotated[
        int, typer.Option(min=1, help="The most characters of a document.")
    ] = 800,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave damaged records out, and list them.")
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(help="An OpenAI-compatible API that writes more questions, e.g. http://…/v1."),
    ] = None,
    model: Annotated[
        str, typer.Option("--endpoint-model", help="The model's name at the endpoint.")
    ] = "default",
    key: Annotated[
        str | None, typer.Option(help="The environment variable that holds the endpoint's key.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed for choosing candidates.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Make training examples from an agent's logs: tool outputs, questions, exact answers.

    `clara-mlx examples runs/*.traj --to examples.jsonl`, then name the file in `train.toml`

    Rules ask only what has one sure answer (which test failed, which line, which value). An
    endpoint can write more questions; a question is kept only if the output contains its answer.
    Keys, tokens and passwords are masked before anything is written or sent to the endpoint.
    """
    from clara_mlx.train.examples import documents, trajectories
    from clara_mlx.train.examples.question_writer import QuestionWriter

    if to.exists() and not force:
        raise ClaraError(f"{to}: already exists; name another file, or use --force")
    if key is not None and key not in os.environ:
        raise ClaraError(
            f"{key}: this environment variable is not set; set it to the endpoint's key"
        )
    outputs: list[trajectories.ToolOutput] = []
    problems: list[str] = []
    for log in logs:
        read = trajectories.read(log, skip_damaged=skip_damaged)
        outputs += read.outputs
        problems += read.problems
    api_key = os.environ[key] if key else None
    made: dict[str, documents.Document] = {}
    with (
        QuestionWriter(endpoint, model, api_key=api_key) if endpoint else nullcontext() as writer,
        progress_bar("asking about") as progress,
    ):
        for number, output in enumerate(outputs):
            progress(number, len(outputs), output.where)
            for document in documents.make_documents([output], characters, writer):
                made.setdefault(document.text, document)
    several = 5 if stage in ("retrieval", "end-to-end") else 1
    records = documents.make_records(list(made.values()), stage, candidates or several, seed)
    count = documents.write_records(records, to)
    result = {
        "outputs": len(outputs),
        "documents": len(made),
        "questions": sum(len(document.pairs) for document in made.values()),
        "secrets_masked": sum(output.secrets for output in outputs),
        "records": count,
        "file": str(to),
        "left_out": problems,
    }
    lines = _format({name: value for name, value in result.items() if name != "left_out"})
    emit(result, [*lines, *(f"left out: {problem}" for problem in problems)], as_json)


def _format(figures: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_format_number(item)}" for key, item in value.items())
        lines.append(f"{name.replace('_', ' ')}: {_format_number(value)}")
    return lines


def _format_number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def _step_progress() -> Iterator[OnStep]:
    """Loss and remaining time on standard error: a bar on a terminal, and else plain lines."""
    if is_quiet() or not sys.stderr.isatty():
        yield _StepLines().show
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn())
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=None)

        def on_step(line: dict[str, Any], steps: int) -> None:
            if "evaluation" in line:
                bar.console.print(f"step {line['step']}: {_evaluation(line)}", highlight=False)
            bar.update(task, description=_speed(line), completed=line["step"], total=steps)

        yield on_step


class _StepLines:
    """Plain lines for a log: the first step, then one in `_SECONDS`, evaluations, the last step."""

    def __init__(self) -> None:
        self._shown: float | None = None  # when the last line was
        self._began = 0.0
        self._first = 0  # the step after which the time was taken

    def show(self, line: dict[str, Any], steps: int) -> None:
        """Print a line about a step if it is time to."""
        now, step = time.monotonic(), line["step"]
        if self._shown is None:
            self._began, self._first = now, step
        is_due = self._shown is None or now - self._shown >= _SECONDS
        if not (is_due or step == steps or "evaluation" in line):
            return
        self._shown = now
        text = f"step {step:,} of {steps:,}: {_speed(line)}"
        if step < steps and step > self._first:
            left = (now - self._began) / (step - self._first) * (steps - step)
            text += f", about {_duration(left)} left"
        if "evaluation" in line:
            text += f"; {_evaluation(line)}"
        note(text)


def _speed(line: dict[str, Any]) -> str:
    return f"loss {line['loss']:.4f}, {line['tokens_per_second']:,.0f} tokens/s"


def _evaluation(line: dict[str, Any]) -> str:
    figures = line["evaluation"].items()
    return "evaluation: " + ", ".join(f"{name} {_format_number(value)}" for name, value in figures)


def _duration(seconds: float) -> str:
    """About how long that is: 40 s, 12 min or 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _note(text: str) -> None:
    note(f"note: {text}")
