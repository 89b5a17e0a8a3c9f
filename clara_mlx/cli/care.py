"""Commands that look after a memory: status, verify, vacuum, export, import, forget, undo."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.options import DEFAULT_DB, Db, open_memory, with_filter
from clara_mlx.cli.output import Json, decode, emit, printable, progress_bar, read_stdin
from clara_mlx.cli.work import work_figures, work_lines
from clara_mlx.errors import ClaraError, Progress, reason
from clara_mlx.model.regular import check_input
from clara_mlx.store.atomic import partial_file

if TYPE_CHECKING:
    from clara_mlx.memory import Memory

commands = typer.Typer()


@commands.command()
def status(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Show what a memory holds, how much of it is compressed, and who works on the rest.

    `clara-mlx status`
    """
    from rich.table import Table

    with open_memory(db) as memory:
        figures = dataclasses.asdict(memory.status())
        left = memory.work_left()
    table = Table(show_header=False)
    made_by = ", ".join(f"{name}: {count:,}" for name, count in figures["made_by"].items())
    for name, value in (figures | {"made_by": made_by or None}).items():
        if value is not None:
            table.add_row(
                name.replace("_", " "),
                f"{value:,}" if isinstance(value, int) else printable(str(value)),
            )
    emit(figures | {"work": work_figures(left)}, [table, *work_lines(left)], as_json)


@commands.command()
def verify(
    db: Db = DEFAULT_DB,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Drop damaged latents; they are made again from the originals."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every original, span, latent and index entry; exit code 1 if anything is wrong.

    `clara-mlx verify --repair`
    """
    from rich.table import Table

    with open_memory(db) as memory, progress_bar("verifying") as progress:
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
            *(
                [f"memories that `clara-mlx export` can save: {findings.can_be_exported:,}"]
                if findings.can_be_exported is not None
                else ()
            ),
            *(
                [f"chunks to compress again, by `clara-mlx flush`: {repaired:,}"]
                if repaired
                else ()
            ),
            "problems found" if findings.problems else "all is well",
        ],
        as_json,
    )
    if findings.problems:
        raise ClaraError(f"{db}: problems found: {len(findings.problems)}")


@commands.command()
def vacuum(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Return the space of forgotten memories to the disk.

    `clara-mlx vacuum`
    """
    with open_memory(db) as memory, progress_bar("vacuuming"):
        before, after = memory.vacuum()
    figures = {"bytes_before": before, "bytes_after": after}
    emit(figures, [f"{before:,} bytes before, {after:,} after"], as_json)


commands.command(
    "compact",
    hidden=True,
    help="The old name of `clara-mlx vacuum`; use that instead.",
)(vacuum)


@commands.command()
@with_filter
def export(
    to: Annotated[
        Path | None, typer.Option(help="The file to write; standard output if none is named.")
    ] = None,
    file: Annotated[
        Path | None, typer.Argument(hidden=True, help="The same as --to: its form until 0.1.")
    ] = None,
    db: Db = DEFAULT_DB,
    sqlite: Annotated[
        Path | None,
        typer.Option(help="Write plain tables instead, which any SQLite and datasette open."),
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Write a Parquet file instead; needs pyarrow.")
    ] = None,
    *,
    where: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Write memories with their originals as JSON lines, for `import`, or as tables.

    `clara-mlx export --to memory.jsonl -s pytest`; `clara-mlx export --sqlite memory-tables.db`

    docs/EXPORT.md describes the tables, which can't be imported.
    Latents are left out, since they can be computed again. The file appears only when it is
    complete, and only its owner can read it. If its name is a link, the file takes the link's
    place; what the link leads to stays as it is. Of a damaged memory file, what can be read is
    exported; the rest is named, and the exit code is 1.
    """
    from clara_mlx.store.exports import Incomplete

    if file is not None:
        typer.echo("clara-mlx: export takes its file as --to FILE now", err=True)
        to = to or file
    if len([one for one in (to, sqlite, parquet) if one is not None]) > 1:
        raise typer.BadParameter("name one file to write", param_hint="--sqlite, --parquet")
    if parquet:
        import pyarrow  # noqa: F401  # said before anything is read, if it is missing
    incomplete: Incomplete | None = None
    with open_memory(db) as memory, progress_bar("exporting") as progress:
        try:
            if sqlite:
                count = memory.export_sqlite(sqlite, where, progress=progress)
            elif parquet:
                count = memory.export_parquet(parquet, where, progress=progress)
            else:
                count = _export_lines(memory, to, where, progress)
        except Incomplete as error:
            incomplete, count = error, error.written
    to = to or sqlite or parquet
    damaged = incomplete.problems if incomplete else []
    if to is not None:
        figures = {"memories": count, "file": str(to), "damaged": damaged}
        emit(figures, [f"memories in {to}: {count:,}"], as_json)
    for problem in damaged:
        typer.echo(printable(problem), err=True)
    if incomplete:
        raise incomplete


def _export_lines(
    memory: Memory, to: Path | None, where: dict[str, Any], progress: Progress
) -> int:
    """Write JSON lines; of a damaged memory, the lines that could be written stay."""
    from clara_mlx.store.exports import Incomplete

    incomplete: Incomplete | None = None
    with nullcontext(sys.stdout) if to is None else _new_file(to) as file:
        try:
            count = memory.export(file, where, progress=progress)
        except Incomplete as error:
            incomplete = error
        file.flush()
    if incomplete:
        raise incomplete
    return count


@contextmanager
def _new_file(to: Path) -> Iterator[IO[str]]:
    """A file that is complete or not there and, like the memory, for its owner alone."""
    if to.exists() and not to.is_file():
        raise ClaraError(f"{to}: not a regular file; name another one")
    try:
        with partial_file(to, private=True) as partial, partial.open("w", encoding="ascii") as file:
            yield file
    except OSError as error:
        raise ClaraError(f"{to}: {reason(error)}") from error


@commands.command(name="import")
def import_(
    file: Annotated[
        Path | None,
        typer.Argument(help="A file that `export` wrote; standard input if none is named."),
    ] = None,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Remember the memories of an export, with their handles, times and metadata.

    `clara-mlx import memory.jsonl`

    Memories that are already there are left as they are, so an import can be repeated. A damaged
    line ends the import; the memories before that line are kept.
    """
    with _read_lines(file) as lines, open_memory(db, make=True) as memory:
        count = memory.import_(lines, str(file or "standard input"))
    emit({"new": count}, [f"new memories: {count:,}"], as_json)


@contextmanager
def _read_lines(file: Path | None) -> Iterator[Iterator[str]]:
    """Lines of a file, with a progress bar, or of standard input."""
    if file is None:
        yield iter(decode(read_stdin()).split("\n"))
        return
    try:
        check_input(file)
        with file.open("rb") as binary, progress_bar("importing", in_bytes=True) as progress:
            size = file.stat().st_size
            done = 0

            def read() -> Iterator[str]:
                nonlocal done
                for line in binary:
                    yield decode(line)
                    done += len(line)
                    progress(done, size)

            yield read()
    except OSError as error:
        raise ClaraError(f"{file}: {reason(error)}") from error


@commands.command()
@with_filter
def forget(
    handles: Annotated[
        list[str] | None,
        typer.Argument(help="The memories' handles; or use options to choose memories."),
    ] = None,
    db: Db = DEFAULT_DB,
    *,
    where: dict[str, Any],
    yes: Annotated[bool, typer.Option("--yes", help="Forget without asking first.")] = False,
    as_json: Json = False,
) -> None:
    """Remove memories for good: originals, text, latents and index entries.

    `clara-mlx forget -s pytest --before 2026-01-01`

    Content that other memories share is kept.
    """
    if handles:
        where["handle"] = handles
    if not where:
        raise ClaraError(
            "what to forget? Name handles, or choose memories: --source, --meta, --before ..."
        )
    with open_memory(db) as memory:
        found = {stored.handle for stored in memory.list(where)}
        missing = [handle for handle in handles or () if handle not in found]
        if missing:
            raise ClaraError(f"{db}: no memory {', '.join(missing)}; nothing was forgotten")
        if found and not yes:
            typer.confirm(
                f"Memories to forget for good: {len(found):,}. Go on?", abort=True, err=True
            )
        count = memory.forget(where=where)
    emit({"forgotten": count}, [f"memories forgotten: {count:,}"], as_json)


@commands.command()
def undo(
    session: Annotated[
        str, typer.Argument(help="The conversation's name, as in the header x-clara-session.")
    ],
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Have a conversation sent to the reasoner as it came again.

    `clara-mlx undo c-1f2e3d4c5b6a7980`

    What was put in the place of its messages is set aside from the next request on, also by a
    gateway that is running; originals and handles stay. If the conversation would not fit then, it
    is compacted once more, without folds if that is enough.
    """
    from clara_mlx.context import Context

    with open_memory(db) as memory:
        undone = Context(memory).undo_session(session)
    emit({"undone": undone}, [f"blocks and folds no longer sent: {undone:,}"], as_json)
