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
        typer.Argument(help="Model folders or hub ids; the others are compared with the first."),
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

    Writes report.json and report.html. Every answer is written to answers.jsonl at once, so an
    interrupted run continues where it stopped.
    """
    from clara_mlx.evaluate import report, tables

    if markdown is not None:
        typer.echo(tables.to_markdown(report.read(markdown)), nl=False)
        return
    if not models:
        raise typer.BadParameter("name at least one model folder or hub id", param_hint="MODELS")

    from dataclasses import replace

    from clara_mlx.evaluate import run

    if html:
        report.require_page_libraries()  # before hours of work
    base = run.QUICK if quick else run.Settings()
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
        result = run.evaluate(models, to, settings, progress)
    written = report.write(result, to, html=html)
    grids = [grid.to_rich() for grid in tables.main_grids(result)]
    emit(result, [*grids, *(f"wrote {file}" for file in written)], as_json)
