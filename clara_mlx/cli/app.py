"""The command `clara-mlx`: its groups of commands, and how an error ends it."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clara_mlx.cli import (
    browse,
    care,
    connect,
    demo,
    evaluate,
    memory,
    model,
    plan,
    serve,
    stats,
    train,
    ui,
    upload,
)
from clara_mlx.cli.extras import what_to_install
from clara_mlx.cli.notes import set_verbosity
from clara_mlx.cli.output import Printed
from clara_mlx.cli.renamed import renew
from clara_mlx.errors import ClaraError
from clara_mlx.version import __version__

# Where a context keeps whether the command line has --json.
_AS_JSON = "clara_mlx.cli.as_json"


class _Commands(TyperGroup):
    """The one place that turns an error a user can act on into one message and exit code 1."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, whose flags are shown without ``<bool>``: they take no value."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _show_flags_bare([*command.params, command.get_help_option(ctx)])
        return command

    def get_params(self, ctx: Any) -> Any:
        """The options of ``clara-mlx`` itself, shown in the same way."""
        return _show_flags_bare(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, and see whether a program will read the result."""
        ctx.meta[_AS_JSON] = "--json" in args
        # What stands before the command's name: --version, -v and -q, which take no value.
        start = next((i for i, arg in enumerate(args) if not arg.startswith("-")), len(args))
        renewed, notes = renew(args[start:])
        for note in notes:
            typer.echo(f"clara-mlx: {note}", err=True)
        return super().parse_args(ctx, [*args[:start], *renewed])

    def invoke(self, ctx: Any) -> Any:
        as_json = ctx.meta[_AS_JSON]
        Printed.json = False
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # typer ends quietly
            raise
        except (ClaraError, OSError) as error:  # an OSError: standard output's disk is full
            _say(str(error), type(error).__name__, as_json)
            raise typer.Exit(1) from error
        except ModuleNotFoundError as error:
            if (advice := what_to_install(error)) is None:
                raise
            _say(advice, "MissingPackage", as_json)
            raise typer.Exit(1) from error
        except typer.TyperException as error:  # the command line itself, which typer explains
            if as_json:
                _print_error(error.format_message(), type(error).__name__)
            raise


def _say(message: str, kind: str, as_json: bool) -> None:
    typer.echo(f"clara-mlx: {message}", err=True)
    if as_json:
        _print_error(message, kind)


def _print_error(message: str, kind: str) -> None:
    """Print an error on standard output, for a program that reads JSON there."""
    if Printed.json:  # the result itself says what is wrong
        return
    with suppress(OSError):  # perhaps it is standard output that can't be written
        typer.echo(json.dumps({"error": {"type": kind, "message": message}}))


def _show_flags_bare(options: list[Any]) -> list[Any]:
    for option in options:
        if getattr(option, "is_flag", False):
            option.metavar = ""
    return options


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
    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", help="Before a command: log what is done, and how long."),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("-q", "--quiet", help="Before a command: only results and errors."),
    ] = False,
) -> None:
    if verbose and quiet:
        raise typer.BadParameter("choose one of the two", param_hint="-v, -q")
    set_verbosity(quiet=quiet, verbose=verbose)


#: The panels of ``--help`` and what they hold, in this order.
PANELS = {
    "Start": (demo, connect),
    "Memory": (memory, browse, stats),
    "Gateway": (serve, ui),
    "Model": (model, upload, evaluate, train, plan),
    "Care": (care,),
}
for panel, groups in PANELS.items():
    for group in groups:
        for command in group.commands.registered_commands:
            command.rich_help_panel = panel
        app.add_typer(group.commands)


def main() -> None:
    """Run ``clara-mlx``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a locale may lack letters that a path has
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="clara-mlx")
