"""The command `clara-mlx`: its groups of commands, and how an error ends it."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from clara_mlx.cli.extras import what_to_install
from clara_mlx.cli.notes import set_verbosity
from clara_mlx.cli.output import Printed
from clara_mlx.cli.renamed import renew
from clara_mlx.errors import ClaraError
from clara_mlx.version import __version__

if TYPE_CHECKING:
    app: typer.Typer  # made when it is asked for

#: The panels of ``--help``, in this order, with the modules that have their commands. A test holds
#: this against the modules, of which only the one that is needed is imported.
PANELS: dict[str, dict[str, tuple[str, ...]]] = {
    "Start": {"demo": ("demo",), "connect": ("connect", "doctor")},
    "Memory": {
        "memory": ("remember", "recall", "ask", "original", "flush", "recompress"),
        "work": ("work",),
        "browse": ("list", "show", "search"),
        "stats": ("stats",),
    },
    "Gateway": {"serve": ("serve", "mcp"), "ui": ("ui",)},
    "Model": {
        "model": ("convert", "inspect"),
        "compress": ("compress",),
        "upload": ("upload",),
        "evaluate": ("evaluate",),
        "bench": ("bench",),
        "train": ("train", "examples"),
        "plan": ("plan",),
    },
    "Care": {
        "care": (
            *("status", "verify", "vacuum", "compact"),
            *("export", "import", "forget", "undo"),
        ),
        "move": ("move",),
    },
}

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


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clara-mlx {__version__}")
        raise typer.Exit


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


def make_app(command: str | None = None) -> typer.Typer:
    """The program with all its commands; if one of them is named, with those of its module only."""
    app = typer.Typer(
        cls=_Commands,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="CLaRa on Apple Silicon: an agent's memory as latent memory tokens.",
    )
    app.callback()(_options)
    known = any(command in names for modules in PANELS.values() for names in modules.values())
    for panel, modules in PANELS.items():
        for module, names in modules.items():
            if known and command not in names:
                continue
            commands: typer.Typer = import_module(f"clara_mlx.cli.{module}").commands
            for one in commands.registered_commands:
                one.rich_help_panel = panel
            app.add_typer(commands)
    return app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = made = make_app()
    return made


def main() -> None:
    """Run ``clara-mlx``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a locale may lack letters that a path has
            stream.reconfigure(errors="backslashreplace")
    # A name that is not known makes the whole program, which says which there are; so does a shell
    # that completes a line, as it gives no arguments.
    named = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    make_app(named)(prog_name="clara-mlx")
