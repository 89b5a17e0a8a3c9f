"""`clara-mlx bench`: what CLaRa costs on this machine, and two benches side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.options import NeededModel, require_model
from clara_mlx.cli.output import Json, emit, progress_bar

if TYPE_CHECKING:
    from rich.console import RenderableType

    from clara_mlx.speed.settings import Settings

commands = typer.Typer()


@commands.command()
def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Model folders; the others beside the first."),
    ] = None,
    model: NeededModel = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Only these parts: load, limits, compress, query, answer, mlx-lm, memory, "
            "retrieval, gateway; separated by commas."
        ),
    ] = None,
    skip: Annotated[str | None, typer.Option(help="All parts but these.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Fewer figures and runs: see in a minute that all works."),
    ] = False,
    lengths: Annotated[
        str | None, typer.Option(help="Chunk lengths in tokens (16,32,64,128,256).")
    ] = None,
    batches: Annotated[str | None, typer.Option(help="Batch sizes (1,4,16).")] = None,
    documents: Annotated[
        str | None,
        typer.Option(help="Numbers of memories to answer from (1,2,4,8,16,32,64)."),
    ] = None,
    stores: Annotated[
        str | None,
        typer.Option(help="Numbers of chunks in the memories that are searched (100,1000,10000)."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="How often to measure each figure (5; quick: 3).")
    ] = None,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="How many tokens to generate (32; quick: 8).")
    ] = None,
    outputs: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How many outputs to remember, recall and ask about (40; quick: 4); 0: no memory.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="A folder for the report: bench.json, bench.md, bench.html with plots."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Compare two bench.json, the older one first; nothing is measured."),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="With --compare: exit with 1 if a figure is clearly worse by more percent.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure memory and latency on this machine, beside mlx-lm, text and the machine's limit.

    `clara-mlx bench clara-7b-q8 clara-7b-q4 --to bench`

    Measured are loading, compressing, encoding a question, answering, a memory, searching, and the
    gateway. It ends with verdicts: does it load in 8 GB, is a document compressed in 100 ms, are
    the ten best found in 20 ms? What `clara-mlx evaluate` says: whether they are the right ones.

    `clara-mlx bench --compare before.json after.json --fail-above 10`

    docs/BENCH.md says what each figure means, and how two machines are compared.
    """
    if compare is not None and all(compare):
        _compare(compare, to, fail_above, as_json)
        return
    if fail_above is not None:
        raise typer.BadParameter("it needs --compare A.json B.json", param_hint="--fail-above")

    from clara_mlx.evaluate.report import require_page_libraries
    from clara_mlx.speed.settings import QUICK, Settings, choose_parts

    base = QUICK if quick else Settings()
    numbers = {
        "lengths": _numbers(lengths, "--lengths"),
        "batches": _numbers(batches, "--batches"),
        "documents": _numbers(documents, "--documents"),
        "stores": _numbers(stores, "--stores"),
        "repeats": repeats,
        "answer_tokens": answer_tokens,
        "outputs": outputs,
        "parts": choose_parts(_names(only), _names(skip)),
    }
    changed: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    if to is not None:
        require_page_libraries("leave --to out")  # before it is measured
    named = models or [require_model(model, "measuring")]
    _measure(named, replace(base, **changed), to, as_json)


def _measure(models: list[str], settings: Settings, to: Path | None, as_json: bool) -> None:
    """Measure, write the report, and print its tables."""
    from clara_mlx.speed import report, run

    with progress_bar("measuring") as progress:
        result = run.measure(models, settings, progress)
    written = report.write(result, to) if to is not None else []
    *shown, verdict = report.to_terminal(result)
    emit(result, [*shown, *(f"wrote {file}" for file in written), verdict], as_json)


def _compare(
    files: tuple[Path, Path], to: Path | None, fail_above: float | None, as_json: bool
) -> None:
    """Print two benches side by side; exit with 1 if a figure became too much worse."""
    from clara_mlx.speed import comparing, figures

    comparison = comparing.compare(*(figures.read(file) for file in files))
    comparison = {"a": str(files[0]), "b": str(files[1]), **comparison}
    failed = [] if fail_above is None else comparing.worse(comparison, fail_above / 100)
    comparison["failed"] = failed
    written = comparing.write(comparison, to) if to is not None else []
    shown: list[RenderableType] = [
        comparing.grid(comparison).to_rich(),
        *comparing.lines(comparison),
    ]
    shown += [f"worse by more than {fail_above:g}%: {name}" for name in failed]
    emit(comparison, [*shown, *(f"wrote {file}" for file in written)], as_json)
    if failed:
        raise typer.Exit(1)


def _names(given: str | None) -> list[str]:
    return [name.strip() for name in (given or "").split(",") if name.strip()]


def _numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    """The numbers of an option, in rising order; None if it was not given."""
    if text is None:
        return None
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"{text!r}: write positive numbers, separated by commas", param_hint=option
        )
    return tuple(numbers)
