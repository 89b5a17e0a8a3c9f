"""`clara-mlx compress`: texts as memory tokens, counted, or kept in a folder by many machines."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clara_mlx.cli.notes import note
from clara_mlx.cli.options import NeededModel, require_model
from clara_mlx.cli.output import Json, emit, printable, progress_bar, read_bytes, read_stdin
from clara_mlx.cli.ranks import explain_termination
from clara_mlx.errors import ClaraError
from clara_mlx.tool_outputs.decoding import decode

if TYPE_CHECKING:
    from clara_mlx.compressors.bulk_folder import Dtype, Stripe
    from clara_mlx.model.ranks import Ranks

commands = typer.Typer()


@commands.command()
def compress(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Text files, with --to also folders of them; standard input if none is named."
        ),
    ] = None,
    model: NeededModel = None,
    to: Annotated[
        Path | None, typer.Option(help="Keep the latents in this folder; a run can be repeated.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="With --to: compress only the I-th of N stripes."),
    ] = None,
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="With --to: the type of the latents.")
    ] = "float16",
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="Compress nothing: check the stripes in --to and write their index."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compress text into memory tokens and show how many there are, or keep them in a folder.

    `git log --stat -20 | clara-mlx compress --model clara-7b-q8`

    `clara-mlx compress texts/ --model clara-7b-q8 --to latents --shard 1/4`

    Text of any length is split into chunks at natural boundaries; nothing is cut off. With `--to`,
    each content is compressed once, whatever number of files has it, and what is in the folder
    already is left alone, so the same command goes on after an interruption. Several machines share
    the work by `--shard`, or by `mlx.launch --hostfile macs.json -- clara-mlx compress ...`; when
    all stripes are in one folder, their index is written. docs/BULK.md describes the folder.
    """
    if to is None and (shard or merge):
        raise ClaraError("--shard and --merge need --to, the folder that the latents go to")
    if to is None:
        _count(files, require_model(model, "compressing"), as_json)
        return
    if merge:
        _merge(to, as_json)
        return
    if not files:
        raise ClaraError("name the files or folders to compress into --to")
    from clara_mlx.model.ranks import Ranks

    ranks = Ranks.join()
    stripe = _parse_stripe(shard, ranks)
    with explain_termination(ranks, f"what was compressed is kept in {to}"):
        _compress_to(to, files, require_model(model, "compressing"), stripe, dtype, ranks, as_json)


def _count(files: list[Path] | None, model: str, as_json: bool) -> None:
    """Compress texts and show the numbers of their chunks and tokens."""
    texts = (
        {str(file): decode(read_bytes(file)) for file in files}
        if files
        else {"-": decode(read_stdin())}
    )
    from rich.table import Table

    from clara_mlx import load

    clara = load(model)
    with progress_bar("compressing chunks") as progress:
        compressed = clara.compress_batch(list(texts.values()), progress=progress)
    fields = ("source_tokens", "memory_tokens", "ratio")
    result = {
        name: {"characters": len(texts[name]), "chunks": len(one.chunks)}
        | {field: getattr(one, field) for field in fields}
        for name, one in zip(texts, compressed, strict=True)
    }
    table = Table("text", "characters", "chunks", "tokens", "memory tokens", "ratio")
    for name, figures in result.items():
        *counts, ratio = figures.values()
        table.add_row(printable(name), *(f"{count:,}" for count in counts), f"{ratio:.1f}x")
    emit(result, [table], as_json)


def _parse_stripe(shard: str | None, ranks: Ranks) -> Stripe:
    """The stripe that was asked for, or that of this rank.

    Raises:
        ClaraError: Both were given.
    """
    from clara_mlx.compressors.bulk_folder import Stripe

    if shard is None:
        return Stripe(ranks.rank, ranks.size)
    if ranks.size > 1:
        raise ClaraError("leave --shard out: under mlx.launch, each rank takes its own stripe")
    try:
        return Stripe.parse(shard)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from error


def _compress_to(
    to: Path,
    files: list[Path],
    model: str,
    stripe: Stripe,
    dtype: Dtype,
    ranks: Ranks,
    as_json: bool,
) -> None:
    """Compress a stripe into a folder, and merge the stripes if it was the last."""
    from clara_mlx import load
    from clara_mlx.compressors import bulk
    from clara_mlx.compressors.bulk_folder import BulkFolder, StripesMissing, merge

    # Only the first of several ranks speaks; they all have about as much to do.
    with progress_bar("texts") if ranks.is_first else nullcontext() as progress:
        inputs = bulk.read_inputs(bulk.list_files(files), progress)
        compressor = load(model)
        if compressor.kind != "latent":
            raise ClaraError(f"{model}: {compressor.name} makes shorter texts, no latents to keep")
        folder = BulkFolder.open(to, compressor, dtype)
        done = bulk.compress_stripe(compressor, inputs, stripe, folder, progress)
        stripes = ranks.gather({"stripe": str(stripe)} | asdict(done))
        if not ranks.is_first:
            return
        result: dict[str, Any] = {"folder": str(to), "stripes": stripes, "merged": None}
        try:
            result["merged"] = merge(to, progress)
        except StripesMissing as error:
            note(f"note: no index yet: {error}")
    lines = [
        f"stripe {one['stripe']}: {one['contents']:,} contents, {one['compressed']:,} of them "
        f"compressed now; {one['chunks']:,} chunks, {one['source_tokens']:,} tokens as "
        f"{one['memory_tokens']:,} memory tokens"
        for one in stripes
    ]
    emit(result, [*lines, *_describe_merged(to, result["merged"])], as_json)


def _merge(to: Path, as_json: bool) -> None:
    from clara_mlx.compressors.bulk_folder import merge

    with progress_bar("parts") as progress:
        merged = merge(to, progress)
    emit({"folder": str(to), "merged": merged}, _describe_merged(to, merged), as_json)


def _describe_merged(to: Path, merged: dict[str, int] | None) -> list[str]:
    if merged is None:
        return []
    counts = ", ".join(f"{count:,} {name}" for name, count in merged.items())
    return [f"index written: {to / 'index.json'}: {counts}; all hashes are right"]
