"""`clara-mlx evaluate`: what compression keeps, as tables, JSON, Markdown and an HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clara_mlx.cli.output import Json, emit, progress_bar
from clara_mlx.memory.settings import MODEL

if TYPE_CHECKING:
    from clara_mlx.evaluate.comparison import Extent
    from clara_mlx.evaluate.run import Settings

commands = typer.Typer()


@commands.command()
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Model folders or hub ids; the others are compared with the first."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", envvar=MODEL.name, help=f"{MODEL.purpose} The same as MODELS."),
    ] = None,
    probes: Annotated[
        Path | None,
        typer.Option(help="Your own probes: JSON lines with document, question and answer."),
    ] = None,
    sets: Annotated[
        str, typer.Option(help="The sets of probes, separated by commas.")
    ] = "brief,held-out,long,left-out,captured",
    to: Annotated[Path, typer.Option(help="The folder for the report.")] = Path("evaluation"),
    documents: Annotated[
        int | None,
        typer.Option(min=1, help="How many outputs of each tool to generate (40; quick: 1)."),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(min=1, help="The most outputs of a set, spread over it (all; quick: 20)."),
    ] = None,
    chunks: Annotated[
        int | None,
        typer.Option(min=1, help="How many chunks the searched memory holds (5000; quick: 200)."),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(min=1, help="How many questions from each set to ask it (200; quick: 20)."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")] = 48,
    seed: Annotated[int, typer.Option(help="Seed of the outputs and the queries.")] = 0,
    compressor: Annotated[
        list[str] | None,
        typer.Option(
            "--compressor",
            "-c",
            help="Compare: a model folder, a hub id, or a name such as bm25; repeat it.",
        ),
    ] = None,
    mechanics: Annotated[
        list[str] | None,
        typer.Option(help="One whose weights are not trained: only its speed and bytes count."),
    ] = None,
    recorded: Annotated[
        Path | None,
        typer.Option(help="Compare also on recorded outputs: JSON lines, see bench/README.md."),
    ] = None,
    rates: Annotated[
        str, typer.Option(help="How many times shorter texts are made, separated by commas.")
    ] = "4,8,16",
    longest: Annotated[
        int | None,
        typer.Option(min=1, help="Leave out longer outputs, in characters; they are counted."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="The folder of the reasoner's tokenizer (a token is four characters)."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use few probes, to see quickly that all works.")
    ] = False,
    html: Annotated[bool, typer.Option(help="Write report.html, with plots.")] = True,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Print the tables of this report.json as Markdown; nothing is measured."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what compression keeps: exact answers from latents, from text and from cut text.

    `clara-mlx evaluate clara-7b-q8 clara-7b-q4 --probes my-probes.jsonl`

    Writes report.json and report.html, and ends with verdicts: is less than 10% lost at 16x, is
    recall above 95%, is the context shorter by half? Every answer is written to answers.jsonl at
    once, so an interrupted run continues where it stopped.

    `clara-mlx evaluate --compressor clara-7b-q8 --compressor extractive --compressor bm25`

    With --compressor, everything named is measured by the same questions at equal budgets:
    compressors.json, compressors.html and compressors.svg. docs/COMPRESSORS.md says how to read it.
    """
    from clara_mlx.evaluate import report, tables, verdicts

    models = models or ([] if compressor or mechanics else model)
    if markdown is not None:
        typer.echo(_markdown(markdown), nl=False)
        return
    if not models and not compressor and not mechanics:
        raise typer.BadParameter(
            "name at least one model folder or hub id, or --compressor", param_hint="MODELS"
        )

    from dataclasses import replace

    from clara_mlx.evaluate import run

    if html:
        report.require_page_libraries("leave the page out with --no-html")  # before hours of work
    base = run.QUICK if quick else run.Settings()
    settings = replace(
        base,
        sets=tuple(name.strip() for name in sets.split(",") if name.strip()),
        probes=probes,
        per_tool=documents or base.per_tool,
        most=most or base.most,
        chunks=chunks or base.chunks,
        queries=queries or base.queries,
        max_tokens=max_tokens,
        seed=seed,
    )
    if compressor or mechanics:
        from clara_mlx.evaluate.comparison import Extent

        extent = Extent(recorded, _rates(rates), longest, max_tokens, tokenizer)
        names = [*(models or []), *(compressor or [])]
        _compare(names, mechanics or [], settings, extent, to, html=html, as_json=as_json)
        return
    with progress_bar("evaluating") as progress:
        result = run.evaluate(models or [], to, settings, progress)
    written = report.write(result, to, html=html)
    grids = [grid.to_rich() for grid in tables.main_grids(result)]
    verdict = verdicts.table_of(verdicts.of_evaluation(result))
    emit(result, [*grids, *(f"wrote {file}" for file in written), verdict], as_json)


def _rates(given: str) -> tuple[float, ...]:
    """The rates of `--rates`."""
    try:
        rates = tuple(float(rate) for rate in given.split(",") if rate.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{given!r}: write numbers such as 4,8,16") from error
    if not rates or min(rates) < 1:
        raise typer.BadParameter(f"{given!r}: a rate is a number from 1 on")
    return rates


def _compare(
    names: list[str],
    mechanics: list[str],
    settings: Settings,
    extent: Extent,
    to: Path,
    *,
    html: bool,
    as_json: bool,
) -> None:
    """Compare compressors, write the report and print its tables."""
    from clara_mlx.evaluate import comparison, comparison_report, run

    chosen = run.probe_sets(settings) if settings.sets or settings.probes else []
    with progress_bar("comparing") as progress:
        result = comparison.compare(names, chosen, extent, mechanics=mechanics, progress=progress)
    written = comparison_report.write(result, to, html=html)
    grids = [grid.to_rich() for grid in comparison_report.grids(result)]
    emit(result, [*grids, *(f"wrote {file}" for file in written)], as_json)


def _markdown(file: Path) -> str:
    """The tables of a report or a comparison."""
    from clara_mlx.evaluate import comparison_report, report

    if comparison_report.is_comparison(file):
        return comparison_report.to_markdown(comparison_report.read(file))
    return report.to_markdown(report.read(file))
