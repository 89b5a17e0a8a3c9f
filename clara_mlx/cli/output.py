"""What all commands share: reading input, printing tables or JSON, progress bars."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from rich.console import RenderableType

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]


def read_bytes(file: Path) -> bytes:
    """The content of a file that a user named."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ClaraError(f"{file}: {error.strerror}") from error


def read_stdin(*, tee: bool = False) -> bytes:
    """All of standard input, unless that is a terminal.

    With ``tee`` it is passed on to standard output as it comes. An interrupt ends the input: what
    came until then is kept, also when it stopped the command that writes it.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ClaraError("nothing on standard input; name files or pipe a command's output here")
    pieces = []
    with contextlib.suppress(KeyboardInterrupt):
        while piece := sys.stdin.buffer.read1(1 << 16):  # type: ignore[union-attr]
            pieces.append(piece)
            if tee:
                tee = _passed_on(piece)
    return b"".join(pieces)


def _passed_on(piece: bytes) -> bool:
    try:
        write_bytes(piece)
    except BrokenPipeError:  # nobody reads on, but what comes is still wanted here
        # Python flushes standard output once more at its end: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def write_bytes(content: bytes) -> None:
    """Bytes as they are, to standard output."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def decode(content: bytes) -> str:
    """UTF-8; undecodable bytes become lone surrogates, from which the bytes can be had back."""
    return content.decode("utf-8", errors="surrogateescape")


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# All control characters but tab and line feed; surrogates can't be printed at all.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def shown(text: str) -> str:
    """A text for a terminal, on which no character of it can act: colours go, controls show."""
    text = _COLOURS.sub("", text.replace("\r\n", "\n"))
    return _UNPRINTABLE.sub(lambda m: chr(0x2400 + ord(m[0])) if m[0] < " " else "\ufffd", text)


def emit(result: Any, lines: Sequence[RenderableType], as_json: bool) -> None:
    """Print a result: JSON for programs, or tables and lines for people."""
    if as_json:
        typer.echo(json.dumps(result, indent=2, default=str))
        return
    for line in lines:
        if isinstance(line, str):
            typer.echo(shown(line))
        else:
            _print_table(line)


def _print_table(table: RenderableType) -> None:
    from rich.console import Console

    # A pipe has no width: give tables room instead of cutting them at 80 columns.
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


@contextmanager
def progress_bar(what: str, *, in_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error, if that is a terminal; called as `errors.Progress`."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    counted = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def update(done: Any, total: Any, detail: Any = "", /) -> None:
            if isinstance(done, str):  # a room that still calls with (what, done, total)
                done, total, detail = total, detail, done
            bar.update(task, description=f"{what} {detail}".strip(), completed=done, total=total)

        yield update
