"""Input and output of all commands: reading files and pipes, tables or JSON, progress bars."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.notes import is_quiet, note
from clara_mlx.errors import ClaraError, Progress, reason
from clara_mlx.model.regular import check_input

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Seconds between two lines of progress where there is no terminal.
PROGRESS_SECONDS = 5.0

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]


def read_bytes(file: Path) -> bytes:
    """The content of a file that a user named."""
    try:
        check_input(file)
        return file.read_bytes()
    except OSError as error:
        raise ClaraError(f"{file}: {reason(error)}") from error


class NotPassedOn(ClaraError):
    """Standard output took only a part of what was to be passed on.

    Attributes:
        content: All of standard input.
    """

    def __init__(self, content: bytes, error: OSError) -> None:
        self.content = content
        super().__init__(f"standard output: {reason(error)}; not all was passed on")


def read_stdin(*, tee: bool = False) -> bytes:
    """All of standard input, unless that is a terminal.

    With ``tee`` it is passed on to standard output as it arrives. An interrupt ends the input:
    what arrived before it is kept, even if the interrupt also stopped the command that writes it.

    Raises:
        NotPassedOn: Standard output can't be written, as its disk is full. That nobody reads it
            any more is no error.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ClaraError("no input: name files, or pipe a command's output into this one")
    pieces = []
    failure: OSError | None = None
    tee = tee and sys.stdout is not None
    with contextlib.suppress(KeyboardInterrupt):
        while piece := sys.stdin.buffer.read1(1 << 16):  # type: ignore[union-attr]
            pieces.append(piece)
            if tee:
                try:
                    write_bytes(piece)
                except OSError as error:  # the rest of the input is still remembered
                    failure, tee = error, False
                    # Python flushes standard output once more at its exit; that must not fail.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    content = b"".join(pieces)
    if failure is not None and not isinstance(failure, BrokenPipeError):
        raise NotPassedOn(content, failure)
    return content


def write_bytes(content: bytes) -> None:
    """Write bytes to standard output as they are."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def decode(content: bytes) -> str:
    """Decode UTF-8; other bytes become lone surrogates, which can be turned back into bytes."""
    return content.decode("utf-8", errors="surrogateescape")


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# All control characters except tab and line feed; surrogates can't be printed at all.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """A text that can't act on a terminal: colours are removed, control characters shown."""
    text = _COLOURS.sub("", text.replace("\r\n", "\n"))
    return _UNPRINTABLE.sub(lambda m: chr(0x2400 + ord(m[0])) if m[0] < " " else "\ufffd", text)


class Printed:
    """Whether this command has printed a result as JSON, which an error must not follow."""

    json = False


def emit(result: Any, lines: Sequence[RenderableType], as_json: bool) -> None:
    """Print a result: JSON for programs, or tables and lines for people."""
    if as_json:
        Printed.json = True
        typer.echo(json.dumps(result, indent=2, default=str))
        return
    for line in lines:
        if isinstance(line, str):
            typer.echo(printable(line))
        else:
            _print_table(line)


def _print_table(table: RenderableType) -> None:
    from rich.console import Console

    # A pipe has no width: give tables room instead of cutting them at 80 columns.
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)


@contextmanager
def progress_bar(what: str, *, in_bytes: bool = False) -> Iterator[Progress]:
    """A progress bar on standard error; without a terminal, a line every few seconds.

    Args:
        what: The label; work in several steps adds the step it is at.
        in_bytes: Progress is counted in bytes.
    """
    if is_quiet():
        yield lambda done, total, step="": None
        return
    if not sys.stderr.isatty():
        yield _ProgressLines(what, in_bytes).show
        return
    from rich import progress as bars
    from rich.console import Console

    counts = bars.DownloadColumn() if in_bytes else bars.MofNCompleteColumn()
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), counts)
    with bars.Progress(
        *columns, bars.TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int, step: str = "", /) -> None:
            bar.update(task, description=f"{what} {step}".rstrip(), completed=done, total=total)

        yield update


class _ProgressLines:
    """Progress for a log: nothing of work that is short, then a line every few seconds."""

    def __init__(self, what: str, in_bytes: bool) -> None:
        self._what = what
        self._in_bytes = in_bytes
        self._shown = time.monotonic()  # when the last line was, or the work began

    def show(self, done: int, total: int, step: str = "", /) -> None:
        """Say how far the work is, if it is time to."""
        now = time.monotonic()
        if now - self._shown < PROGRESS_SECONDS:
            return
        self._shown = now
        counts = f"{done:,} of {total:,}"
        if self._in_bytes:
            counts = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        note(printable(f"{self._what} {step}".rstrip() + f": {counts}"))


def written_time(seconds: float) -> str:
    """A time for people, in this machine's time zone."""
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # a time that no calendar has
        return f"{seconds:g} s"
