"""The command that trains; thin, it imports what it needs when it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli_output import Json, emit

if TYPE_CHECKING:
    from clara_mlx.train.trainer import OnStep

commands = typer.Typer()


@commands.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; `--example` prints one.")] = Path(
        "train.toml"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the data and print the plan; train nothing.")
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Print an example config.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model's adapters: the stages scp, instruct, end-to-end and retrieval.

    `clara-mlx train --example > train.toml`, then `clara-mlx train train.toml`

    A run that was interrupted, in whatever way, goes on where its newest state is when the same
    command is given again, and comes to the same losses. In the config's `output` folder it writes
    `metrics.jsonl`, a model folder `model/`, and `checkpoint/`, the same in Hugging Face's layout.
    """
    from clara_mlx.train.config import EXAMPLE

    if example:
        typer.echo(EXAMPLE, nl=False)
        return
    from clara_mlx.train.run import Run

    run = Run(config)
    plan = run.describe()
    if dry_run:
        emit(plan, _lines(plan), as_json)
        return
    with _progress() as on_step:
        result = run.train(on_step).to_dict()
    emit(plan | result, _lines(result), as_json)


def _lines(described: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_number(item)}" for key, item in value.items())
        lines.append(f"{name.replace('_', ' ')}: {_number(value)}")
    return lines


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def _progress() -> Iterator[OnStep | None]:
    """A line with loss and remaining time on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=None)

        def on_step(line: dict[str, Any], steps: int) -> None:
            text = f"loss {line['loss']:.4f}  {line['tokens_per_second']:,.0f} tokens/s"
            if "evaluation" in line:
                figures = line["evaluation"]
                shown = "  ".join(f"{name} {_number(value)}" for name, value in figures.items())
                bar.console.print(f"step {line['step']}: {shown}", highlight=False)
            bar.update(task, description=text, completed=line["step"], total=steps)

        yield on_step
