"""The command `clara-mlx`: its groups of commands, and how an error ends it."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clara_mlx.cli import (
    care,
    connect,
    demo,
    evaluate,
    memory,
    model,
    plan,
    serve,
    train,
    ui,
    upload,
)
from clara_mlx.cli.extras import what_to_install
from clara_mlx.errors import ClaraError
from clara_mlx.version import __version__


class _Commands(TyperGroup):
    """The one place that turns an error a user can act on into one message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # typer ends quietly
            raise
        except (ClaraError, OSError) as error:  # an OSError: standard output's disk is full
            typer.echo(f"clara-mlx: {error}", err=True)
            raise typer.Exit(1) from error
        except ModuleNotFoundError as error:
            if (advice := what_to_install(error)) is None:
                raise
            typer.echo(f"clara-mlx: {advice}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="CLaRa on Apple Silicon: an agent's memory as latent memory tokens.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clara-mlx {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for group in (
    demo,
    model,
    upload,
    memory,
    care,
    evaluate,
    train,
    plan,
    serve,
    ui,
    connect,
):  # the order of --help
    app.add_typer(group.commands)


def main() -> None:
    """Run ``clara-mlx``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a locale may lack letters that a path has
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="clara-mlx")
