"""What a command says beside its result, on standard error: notes, and the log of the library."""

from __future__ import annotations

import logging

import typer

# Whether ``clara-mlx -q`` was given, and ``-v``.
_given = {"quiet": False, "verbose": False}


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """How much this command says beside its result; ``verbose`` starts the log."""
    _given.update(quiet=quiet, verbose=verbose)
    if verbose:
        start_logging(logging.WARNING)


def is_quiet() -> bool:
    """Whether only results and errors are wanted: no notes, no progress."""
    return _given["quiet"]


def note(text: str) -> None:
    """Say a line that is neither the result nor an error."""
    if not is_quiet():
        typer.echo(text, err=True)


def start_logging(level: int) -> None:
    """Write the log of all libraries to standard error, from a level on.

    With ``-v``, all that this one says is in it; with ``-q``, only warnings are.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(max(level, logging.WARNING) if is_quiet() else level)
    if _given["verbose"]:
        logging.getLogger("clara_mlx").setLevel(logging.DEBUG)
