"""The care of a memory: status, verify, compact, export, import, forget."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from clara_mlx.cli.options import (
    DEFAULT_DB,
    After,
    Before,
    Db,
    Meta,
    Session,
    Source,
    opened,
    where_of,
)
from clara_mlx.cli.output import Json, decode, emit, progress_bar, read_stdin, shown
from clara_mlx.errors import ClaraError

commands = typer.Typer()


@commands.command()
def status(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Show what a memory holds, how large it is, and how far its compression is.

    `clara-mlx status`
    """
    from rich.table import Table

    with opened(db) as memory:
        figures = dataclasses.asdict(memory.status())
    table = Table(show_header=False)
    for name, value in figures.items():
        if value is not None:
            table.add_row(
                name.replace("_", " "),
                f"{value:,}" if isinstance(value, int) else shown(str(value)),
            )
    emit(figures, [table], as_json)


@commands.command()
def verify(
    db: Db = DEFAULT_DB,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Have damaged latents made again from their originals."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every original, span, latent and index entry; exit code 1 if anything is wrong.

    `clara-mlx verify --repair`
    """
    from rich.table import Table

    with opened(db) as memory, progress_bar("verifying") as progress:
        findings = memory.verify(repair=repair, progress=progress)
        repaired = len(findings.damaged_chunks) if repair else 0
        if repaired:
            findings = memory.verify(progress=progress)
    table = Table("checked", "rows")
    for name, count in findings.checked.items():
        table.add_row(name, f"{count:,}")
    emit(
        dataclasses.asdict(findings) | {"repaired": repaired},
        [
            table,
            *findings.problems,
            *([f"{repaired:,} chunks will be compressed again"] if repaired else ()),
            "problems found" if findings.problems else "all is well",
        ],
        as_json,
    )
    if findings.problems:
        raise ClaraError(f"{db}: {len(findings.problems)} problems")


@commands.command()
def compact(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Give the space of what was forgotten back to the disk.

    `clara-mlx compact`
    """
    with opened(db) as memory, progress_bar("compacting"):
        before, after = memory.vacuum()
    figures = {"bytes_before": before, "bytes_after": after}
    emit(figures, [f"{before:,} bytes before, {after:,} after"], as_json)


@commands.command()
def export(
    to: Annotated[
        Path | None, typer.Argument(help="The file to write; standard output without.")
    ] = None,
    db: Db = DEFAULT_DB,
    source: Source = None,
    session: Session = None,
    meta: Meta = None,
    after: After = None,
    before: Before = None,
    as_json: Json = False,
) -> None:
    """Write memories with their originals as JSON lines, for `import`.

    `clara-mlx export memory.jsonl -s pytest`

    Latents are left out: they can always be made again. The file is complete or not there.
    """
    where = where_of(source, session, meta, after, before)
    with opened(db) as memory, progress_bar("exporting") as progress:
        if to is None:
            memory.export(sys.stdout, where, progress=progress)
            sys.stdout.flush()
            return
        with _complete_or_not_there(to) as file:
            count = memory.export(file, where, progress=progress)
    emit({"memories": count, "file": str(to)}, [f"memories in {to}: {count:,}"], as_json)


@contextmanager
def _complete_or_not_there(to: Path) -> Iterator[IO[str]]:
    """A file that takes its name when all is written; like the memory, for its owner alone."""
    if to.exists() and not to.is_file():
        raise ClaraError(f"{to}: not a file")
    partial = to.with_name(f".{to.name}.{os.getpid()}.partial")
    try:
        opened = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(opened, "w", encoding="ascii") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(to)
    except OSError as error:
        raise ClaraError(f"{to}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


@commands.command(name="import")
def import_(
    file: Annotated[
        Path | None, typer.Argument(help="What `export` wrote; standard input without.")
    ] = None,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Remember the memories of an export, with their handles, times and metadata.

    `clara-mlx import memory.jsonl`

    Memories that are there already are left as they are, so it can be run again. A damaged line
    ends it; those before it are kept.
    """
    with _lines(file) as lines, opened(db, make=True) as memory:
        count = memory.import_(lines)
    emit({"new": count}, [f"new memories: {count:,}"], as_json)


@contextmanager
def _lines(file: Path | None) -> Iterator[Iterator[str]]:
    """Lines of a file, with a progress bar, or of standard input."""
    if file is None:
        yield iter(decode(read_stdin()).split("\n"))
        return
    try:
        with file.open("rb") as opened, progress_bar("importing", in_bytes=True) as progress:
            size, done = file.stat().st_size, 0

            def read() -> Iterator[str]:
                nonlocal done
                for line in opened:
                    yield decode(line)
                    done += len(line)
                    progress("", done, size)

            yield read()
    except OSError as error:
        raise ClaraError(f"{file}: {error.strerror}") from error


@commands.command()
def forget(
    handles: Annotated[
        list[str] | None, typer.Argument(help="Memories, or describe them by the options.")
    ] = None,
    db: Db = DEFAULT_DB,
    source: Source = None,
    session: Session = None,
    meta: Meta = None,
    after: After = None,
    before: Before = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove memories for good: originals, text, latents and index entries.

    `clara-mlx forget -s pytest --before 2026-01-01`

    Content that another memory still holds stays.
    """
    where = where_of(source, session, meta, after, before)
    if handles:
        where["handle"] = handles
    if not where:
        raise ClaraError("name handles, or describe what to forget: --source, --meta, --before ...")
    with opened(db) as memory:
        found = {stored.handle for stored in memory.list(where)}
        missing = [handle for handle in handles or () if handle not in found]
        if missing:
            raise ClaraError(f"{db}: no memory {', '.join(missing)}; nothing was forgotten")
        if found and not yes:
            typer.confirm(
                f"Memories to forget for good: {len(found):,}. Go on?", abort=True, err=True
            )
        count = memory.forget(where=where) if found else 0
    emit({"forgotten": count}, [f"memories forgotten: {count:,}"], as_json)
