"""`clara-mlx evaluate`: what compression keeps, as tables, JSON, Markdown and an HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clara_mlx.cli.output import Json, emit, progress_bar

commands = typer.Typer()


@commands.command()
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="A model folder or hub id; others after it are compared with it."),
    ] = None,
    probes: Annotated[
        Path | None,
        typer.Option(help="Your own probes: JSON lines with document, question and answer."),
    ] = None,
    sets: Annotated[
        str, typer.Option(help="Which sets, separated by commas.")
    ] = "brief,held-out,long,left-out,captured",
    to: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("evaluation"),
    documents: Annotated[
        int | None, typer.Option(min=1, help="Generated outputs of each tool (40; quick: 1).")
    ] = None,
    chunks: Annotated[
        int | None, typer.Option(min=1, help="In the memory that is searched (5000; quick: 200).")
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Asked of it from each set (200; quick: 20).")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 48,
    seed: Annotated[int, typer.Option(help="Of the outputs, the queries and the intervals.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few probes, to see that it works.")
    ] = False,
    html: Annotated[bool, typer.Option(help="Write report.html, with plots.")] = True,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Measure nothing: print the tables of this report.json as Markdown."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what compression keeps: exact answers from latents beside text and truncation.

    `clara-mlx evaluate clara-7b-q8 clara-7b-q4 --probes my-probes.jsonl`

    Writes report.json and report.html. Every answer is kept in answers.jsonl as it comes: an
    interrupted run goes on where it ended.
    """
    from clara_mlx.evaluate import plots, report, tables

    if markdown is not None:
        typer.echo(tables.markdown(report.read(markdown)), nl=False)
        return
    if not models:
        raise typer.BadParameter("name a model folder or hub id", param_hint="MODELS")

    from dataclasses import replace

    from clara_mlx.evaluate.run import QUICK, Settings, run

    if html:
        plots.check()  # before hours of work
    base = QUICK if quick else Settings()
    settings = replace(
        base,
        sets=tuple(name.strip() for name in sets.split(",") if name.strip()),
        probes=probes,
        per_tool=documents or base.per_tool,
        chunks=chunks or base.chunks,
        queries=queries or base.queries,
        max_tokens=max_tokens,
        seed=seed,
    )
    with progress_bar("evaluating") as progress:
        result = run(models, to, settings, progress)
    written = report.write(result, to, html=html)
    shown = [grid.rich() for grid in tables.grids(result)]
    emit(result, [*shown, *(f"wrote {file}" for file in written)], as_json)
