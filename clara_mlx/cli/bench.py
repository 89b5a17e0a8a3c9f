"""`clara-mlx bench`: how much memory and time a model takes on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from clara_mlx.cli.model import ModelArgument
from clara_mlx.cli.output import Json, emit, progress_bar

commands = typer.Typer()


@commands.command()
def bench(
    model: ModelArgument,
    lengths: Annotated[
        str, typer.Option(help="Chunk lengths in tokens, separated by commas.")
    ] = "32,64,128,256",
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,4,16",
    repeats: Annotated[
        int, typer.Option(min=1, help="Timings per figure, of which the median is shown.")
    ] = 5,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate.")] = 32,
    as_json: Json = False,
) -> None:
    """Measure memory and latency on this machine: load, compress, encode a query, answer.

    `clara-mlx bench clara-7b-q8 --json > bench.json`
    """
    from clara_mlx.evaluate import speed

    with progress_bar("measuring") as progress:
        result = speed.measure(
            model,
            lengths=_parse_numbers(lengths, "--lengths"),
            batches=_parse_numbers(batches, "--batches"),
            repeats=repeats,
            answer_tokens=answer_tokens,
            progress=progress,
        )
    emit(result, speed.tables(result), as_json)


def _parse_numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"{text!r}: write positive numbers, separated by commas", param_hint=option
        )
    return numbers
