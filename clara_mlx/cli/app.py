"""The command line: thin commands, each importing what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clara_mlx.cli import care, evaluate, memory, plan, serve, train
from clara_mlx.cli.output import Json, decode, emit, progress_bar, read_bytes, read_stdin, shown
from clara_mlx.errors import ClaraError
from clara_mlx.version import __version__


class _Commands(TyperGroup):
    """Turns errors a user can act on into one message and exit code 1; the only place that does."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # typer ends quietly
            raise
        except (ClaraError, OSError) as error:  # e.g. standard output's disk is full
            typer.echo(f"clara-mlx: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="CLaRa on Apple Silicon: an agent's memory as latent memory tokens.",
)

Base = Annotated[
    str | None,
    typer.Option(
        help="The base model (folder or hub id). Without it: what the checkpoint names, else "
        "Mistral-7B-Instruct-v0.2 if all tensor shapes are Mistral's."
    ),
]
Subfolder = Annotated[
    str | None,
    typer.Option(help="The checkpoint inside SOURCE, e.g. `compression-16` or `compression-128`."),
]
Model = Annotated[str, typer.Argument(help="A model folder made by `convert`, or its hub id.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clara-mlx {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A CLaRa checkpoint: folder or hub id.")],
    to: Annotated[Path, typer.Option(help="The model folder to make.")],
    base: Base = None,
    subfolder: Subfolder = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a hub checkpoint.")
    ] = None,
    quantise: Annotated[
        str,
        typer.Option("-q", "--quantise", help="Bits per weight of the base: 8, 6, 4, or none."),
    ] = "8",
    group_size: Annotated[
        int, typer.Option(help="Weights that share a scale: 32, 64 or 128.")
    ] = 64,
    dtype: Annotated[
        str, typer.Option(help="Of all that is not quantised: bfloat16, float16 or float32.")
    ] = "bfloat16",
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing model folder.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Afterwards compare it with its source, latents included."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn a Hugging Face CLaRa checkpoint into an MLX model folder.

    `clara-mlx convert apple/CLaRa-7B-E2E --subfolder compression-16 --to clara-7b-q8`

    The folder is complete or not there: an interrupted run leaves nothing under its name. Every
    adapter of the checkpoint is converted, and any tensor that is missing, unexpected or of the
    wrong shape ends the conversion with all of them listed.
    """
    from clara_mlx.convert import Source, report
    from clara_mlx.convert import convert as run
    from clara_mlx.convert import verify as compare
    from clara_mlx.convert.quantise import Quantisation

    if quantise not in ("8", "6", "4", "none"):
        raise typer.BadParameter(f"{quantise!r}: choose 8, 6, 4 or none", param_hint="-q")
    quantisation = None if quantise == "none" else Quantisation(int(quantise), group_size)
    opened = Source.open(source, base=base, subfolder=subfolder, revision=revision)
    for note in opened.notes:
        typer.echo(f"note: {note}", err=True)
    with progress_bar("converting", in_bytes=True) as progress:
        done = run(
            opened, to, quantisation=quantisation, dtype=dtype, force=force, progress=progress
        )
    result = done.to_dict()
    shown = report.conversion(done)
    if verify:
        with progress_bar("verifying") as progress:
            verification = compare(done.folder, opened, progress=progress)
        result["verification"] = verification.to_dict()
        shown += report.verification(verification, errors=False)
    emit(result, shown, as_json)
    if verify and verification.problems:
        raise ClaraError(f"{to}: {len(verification.problems)} differences from its source")


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A model folder or a CLaRa checkpoint.")],
    subfolder: Subfolder = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare a model folder with its source, tensor by tensor."),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(help="With --verify: where the checkpoint is now, if it was moved."),
    ] = None,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Show what is inside a model folder or a checkpoint, without loading weights.

    `clara-mlx inspect clara-7b-q8 --verify`
    """
    from clara_mlx.convert import Source, report
    from clara_mlx.convert import inspect as describe

    if not verify:
        described = describe(path, subfolder=subfolder)
        emit(described, report.inspection(described), as_json)
        return

    from clara_mlx.convert import verify as compare
    from clara_mlx.model.folder import ModelFolder

    opened = Source.open_recorded(ModelFolder(path), checkpoint=source, base=base)
    with progress_bar("verifying") as progress:
        verification = compare(path, opened, progress=progress)
    emit(verification.to_dict(), report.verification(verification), as_json)
    if verification.problems:
        raise ClaraError(f"{path}: {len(verification.problems)} differences from its source")


@app.command()
def compress(
    model: Model,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Text files; standard input without any.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compress text into memory tokens and say what it became.

    `git log --stat -20 | clara-mlx compress clara-7b-q8`

    Text of any length is split into chunks at natural boundaries; nothing is cut off.
    """
    texts = (
        {str(file): decode(read_bytes(file)) for file in files}
        if files
        else {"-": decode(read_stdin())}
    )
    from rich.table import Table

    from clara_mlx import load

    clara = load(model)
    with progress_bar("compressing") as progress:
        compressed = clara.compress_batch(
            list(texts.values()), progress=lambda done, total, _="": progress("chunks", done, total)
        )
    fields = ("source_tokens", "memory_tokens", "ratio")
    result = {
        name: {"characters": len(texts[name]), "chunks": len(c.chunks)}
        | {field: getattr(c, field) for field in fields}
        for name, c in zip(texts, compressed, strict=True)
    }
    table = Table("text", "characters", "chunks", "tokens", "memory tokens", "ratio")
    for name, figures in result.items():
        *counts, ratio = figures.values()
        table.add_row(shown(name), *(f"{count:,}" for count in counts), f"{ratio:.1f}x")
    emit(result, [table], as_json)


@app.command()
def bench(
    model: Model,
    lengths: Annotated[
        str, typer.Option(help="Chunk lengths in tokens, separated by commas.")
    ] = "32,64,128,256",
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,4,16",
    repeats: Annotated[int, typer.Option(min=1, help="Timings per figure; medians count.")] = 5,
    answer_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate.")] = 32,
    as_json: Json = False,
) -> None:
    """Measure memory and latency on this machine: load, compress, encode a query, answer.

    `clara-mlx bench clara-7b-q8 --json > bench.json`
    """
    from clara_mlx.evaluate import speed

    with progress_bar("measuring") as progress:
        result = speed.run(
            model,
            lengths=_numbers(lengths, "--lengths"),
            batches=_numbers(batches, "--batches"),
            repeats=repeats,
            answer_tokens=answer_tokens,
            progress=progress,
        )
    emit(result, speed.tables(result), as_json)


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"{text!r}: positive numbers, separated by commas", param_hint=option
        )
    return numbers


app.add_typer(memory.commands)
app.add_typer(care.commands)
app.add_typer(evaluate.commands)
app.add_typer(train.commands)
app.add_typer(plan.commands)
app.add_typer(serve.commands)


def main() -> None:
    """The ``clara-mlx`` command."""
    app(prog_name="clara-mlx")
