"""Commands about models: convert a checkpoint, and see what a folder has inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clara_mlx.cli.notes import note
from clara_mlx.cli.output import Json, emit, progress_bar
from clara_mlx.cli.upload import Licence, Private, Repository, YesLicence, publish
from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from clara_mlx.convert.kinds import AnySource
    from clara_mlx.convert.verification import Verification
    from clara_mlx.model.schemes import Quantisation

commands = typer.Typer()

Base = Annotated[
    str | None,
    typer.Option(
        help="The base model (folder or hub id); by default the one that the checkpoint names, or "
        "Mistral-7B-Instruct-v0.2 if all tensor shapes are Mistral's."
    ),
]
Subfolder = Annotated[
    str | None,
    typer.Option(help="The checkpoint inside SOURCE, e.g. `compression-16` or `compression-128`."),
]
ModelArgument = Annotated[
    str, typer.Argument(help="A model folder made by `convert`, or its hub id.")
]


@commands.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="A checkpoint of CLaRa or PISCO: folder or hub id.")
    ],
    to: Annotated[Path, typer.Option(help="The model folder to make.")],
    base: Base = None,
    subfolder: Subfolder = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a hub checkpoint.")
    ] = None,
    quantise: Annotated[
        Literal["8", "6", "5", "4", "3", "2", "none"] | None,
        typer.Option(
            "-q",
            "--quantise",
            "--q-bits",
            help="Bits per weight of the base; 8 by default. None leaves it as it is.",
        ),
    ] = None,
    mode: Annotated[
        Literal["affine", "mxfp4", "nvfp4", "mxfp8"],
        typer.Option("--q-mode", help="What mlx quantises to."),
    ] = "affine",
    group_size: Annotated[
        int | None,
        typer.Option(
            "--group-size",
            "--q-group-size",
            help="How many weights share a scale: 32, 64 or 128, smaller where the rows of a "
            "matrix need it; 64 by default. The other modes have only one size.",
        ),
    ] = None,
    recipe: Annotated[
        Literal["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6", "latents_4_6"] | None,
        typer.Option(
            "--recipe",
            "--quant-predicate",
            help="Give some matrices more bits, as mlx-lm does; latents_4_6, which is ours, keeps "
            "more of the latents than mixed_4_6 at the same size.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32", "bf16", "fp16", "fp32"],
        typer.Option(help="The type of all other weights."),
    ] = "bfloat16",
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing model folder.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Then compare the folder with its source, latents included."),
    ] = False,
    repository: Repository = None,
    licence: Licence = None,
    yes_licence: YesLicence = False,
    private: Private = False,
    as_json: Json = False,
) -> None:
    """Turn a Hugging Face checkpoint of CLaRa, LCLM or LLMLingua-2 into an MLX model folder.

    `clara-mlx convert apple/CLaRa-7B-E2E --subfolder compression-16 --to clara-7b-q8`

    The kind of the checkpoint is recognised by its files. The folder appears only when it is
    complete, so an interrupted run leaves nothing under its name. All parts of the checkpoint are
    converted. If any tensors are missing, unexpected or of the wrong shape, the conversion lists
    them and writes nothing.
    """
    from clara_mlx.convert import report
    from clara_mlx.convert.kinds import convert_checkpoint, open_checkpoint
    from clara_mlx.convert.upload import UploadError, check_may_upload, resolve_licences

    quantisation = _quantisation(quantise, mode, group_size, recipe)
    checkpoint = open_checkpoint(source, base=base, subfolder=subfolder, revision=revision)
    for one in checkpoint.notes:
        note(f"note: {one}")
    licences = resolve_licences(checkpoint.licences, checkpoint.path, licence)
    if repository:
        check_may_upload(repository, licences, agreed=yes_licence)
    with progress_bar("converting", in_bytes=True) as progress:
        converted = convert_checkpoint(
            checkpoint,
            to,
            quantisation=quantisation,
            recipe=recipe,
            dtype=dtype,
            force=force,
            progress=progress,
        )
    result = converted.to_dict()
    verification = _verify(converted.folder, checkpoint) if verify or repository else None
    lines = report.conversion(converted, errors=not verification)
    if verification:
        result["verification"] = verification.to_dict()
        lines += report.verification(verification, formats=converted.formats)
    emit(result, lines, as_json)
    if verification:
        _fail_on_differences(to, verification)
    if repository:
        try:
            address = publish(
                converted.folder,
                repository,
                licence=licences,
                agreed=yes_licence,
                private=private,
                verification=verification,
            )
        except UploadError as error:
            raise UploadError(
                f"{error} (the folder is complete: clara-mlx upload {to} --upload-repo "
                f"{repository})"
            ) from error
        note(f"published: {address}")


def _quantisation(
    bits: str | None, mode: str, group_size: int | None, recipe: str | None
) -> Quantisation | None:
    """The format that the options ask for; None if the base is to stay as it is."""
    from clara_mlx.model.schemes import Quantisation

    if bits is not None and recipe is not None:
        raise typer.BadParameter("a recipe chooses the bits itself; leave -q out", param_hint="-q")
    if bits == "none":
        if mode != "affine":
            raise typer.BadParameter(f"it contradicts --q-mode {mode}", param_hint="-q none")
        return None
    return Quantisation.of_mode(mode, int(bits) if bits else None, group_size)


@commands.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A model folder or a checkpoint.")],
    subfolder: Subfolder = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare a model folder with its source, tensor by tensor."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare a model folder's files with their hashes; needs no source."
        ),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", help="With --verify: where the checkpoint is now, if it has moved."
        ),
    ] = None,
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Show what is inside a model folder or a checkpoint, without loading weights.

    `clara-mlx inspect clara-7b-q8 --verify`
    """
    from clara_mlx.convert import inspection, report
    from clara_mlx.convert.kinds import open_recorded

    if check:
        with progress_bar("checking") as progress:
            files = inspection.check(path, progress=progress)
        if not verify:
            emit({"files": files}, [f"{files} files are as they were made"], as_json)
            return
    if not verify:
        described = inspection.inspect(path, subfolder=subfolder)
        emit(described, report.inspection(described), as_json)
        return
    checkpoint = open_recorded(path, checkpoint=source, base=base)
    verification = _verify(path, checkpoint)
    emit(verification.to_dict(), report.verification(verification), as_json)
    _fail_on_differences(path, verification)


def _verify(folder: str | Path, checkpoint: AnySource) -> Verification:
    from clara_mlx.convert.kinds import verify_checkpoint

    with progress_bar("verifying") as progress:
        return verify_checkpoint(folder, checkpoint, progress=progress)


def _fail_on_differences(path: str | Path, verification: Verification) -> None:
    if verification.problems:
        raise ClaraError(
            f"{path}: differences from its source: {len(verification.problems)}; see the list above"
        )
