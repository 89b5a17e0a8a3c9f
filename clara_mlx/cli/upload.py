"""Publishing a model folder: the command, and the part of `convert --upload-repo` that follows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clara_mlx.cli.output import Json, emit, progress_bar

if TYPE_CHECKING:
    from clara_mlx.convert.verification import Verification

commands = typer.Typer()

Repository = Annotated[
    str | None,
    typer.Option(
        "--upload-repo", help="Publish the folder on the hub as OWNER/NAME, with a model card."
    ),
]
Licence = Annotated[
    str | None,
    typer.Option(help="With --upload-repo: the licence of what states none, e.g. apache-2.0."),
]
YesLicence = Annotated[
    bool,
    typer.Option(
        "--yes-licence",
        help="With --upload-repo: I may publish it, although a licence is not open or not known.",
    ),
]
Private = Annotated[
    bool, typer.Option("--private", help="With --upload-repo: make a private repository.")
]


@commands.command()
def upload(
    path: Annotated[Path, typer.Argument(help="A model folder made by `convert`.")],
    repository: Repository = None,
    licence: Licence = None,
    yes_licence: YesLicence = False,
    private: Private = False,
    verify: Annotated[
        bool,
        typer.Option(help="First compare the folder with its source; the card says the result."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Publish a model folder on the hub, with a model card made from facts.

    `clara-mlx upload clara-7b-q8 --upload-repo mlx-community/CLaRa-7B-E2E-16x-8bit`

    All files appear in one commit. If the connection breaks, the same command sends only what has
    not arrived.
    """
    from clara_mlx.convert import Source
    from clara_mlx.convert.model_card import propose_name
    from clara_mlx.convert.upload import check_may_upload, resolve_licences
    from clara_mlx.convert.verification import verify as compare
    from clara_mlx.model.folder import ModelFolder

    folder = ModelFolder.open(path)
    if repository is None:
        raise typer.BadParameter(
            f"name the repository, e.g. {propose_name(folder)}", param_hint="--upload-repo"
        )
    licences = resolve_licences(folder.description.get("licences") or {}, folder.path, licence)
    check_may_upload(repository, licences, agreed=yes_licence)
    verification = None
    if verify:
        source = Source.open_recorded(folder)
        with progress_bar("verifying") as progress:
            verification = compare(path, source, progress=progress)
    address = publish(
        path,
        repository,
        licence=licences,
        agreed=yes_licence,
        private=private,
        verification=verification,
    )
    emit({"url": address}, [f"published: {address}"], as_json)


def publish(
    path: Path,
    repository: str,
    *,
    licence: Mapping[str, str | None],
    agreed: bool,
    private: bool,
    verification: Verification | None,
) -> str:
    """Publish a folder, and return its address.

    Raises:
        UploadError: The folder differs from its source; see also `upload`.
    """
    from clara_mlx.convert import report
    from clara_mlx.convert.upload import UploadError
    from clara_mlx.convert.upload import upload as send
    from clara_mlx.model.folder import ModelFolder

    if verification and verification.problems:
        raise UploadError(f"{path}: not uploaded: it differs from its source; convert it again")
    lines = report.verification(verification, errors=False) if verification else []
    return send(
        ModelFolder.open(path),
        repository,
        licence=licence,
        agreed=agreed,
        private=private,
        verified=[line for line in lines if isinstance(line, str)],
    )
