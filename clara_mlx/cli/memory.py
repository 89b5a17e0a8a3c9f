"""Commands that fill and read a memory: remember, recall, ask, original, flush, recompress."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clara_mlx.cli.notes import note
from clara_mlx.cli.options import (
    DEFAULT_DB,
    Compressor,
    Count,
    Db,
    Meta,
    Model,
    NeededModel,
    Session,
    Source,
    open_memory,
    parse_metadata,
    require_compressor,
    with_filter,
)
from clara_mlx.cli.output import (
    Json,
    NotPassedOn,
    emit,
    printable,
    progress_bar,
    read_bytes,
    read_stdin,
    write_bytes,
)
from clara_mlx.cli.scope import PROJECT, Everywhere, Project, Scope, find_root
from clara_mlx.cli.searched import say_how_it_was_searched
from clara_mlx.cli.sessions import remember_sessions
from clara_mlx.errors import ClaraError
from clara_mlx.tool_outputs.decoding import encoding_of

if TYPE_CHECKING:
    from clara_mlx.store.results import Hit

commands = typer.Typer()


@commands.command()
def remember(
    files: Annotated[
        list[Path] | None, typer.Argument(help="The files; standard input if none is named.")
    ] = None,
    db: Db = DEFAULT_DB,
    source: Source = None,
    session: Session = None,
    meta: Meta = None,
    tee: Annotated[
        bool, typer.Option("--tee", help="Also copy standard input to standard output.")
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option("--allow-empty", help="Remember standard input also if nothing came."),
    ] = False,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="AGENT",
            help="Remember the sessions that an agent keeps on disk: claude, codex, opencode, "
            "qwen-code, or the path of a session or a folder.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --from: count, and remember nothing.")
    ] = False,
    mask: Annotated[
        bool,
        typer.Option("--mask", help="With --from: mask passwords, keys and tokens before."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Remember a command's output, files, or an agent's sessions; then they are safely on disk.

    `pytest 2>&1 | clara-mlx remember -s pytest`; `clara-mlx remember --from claude --dry-run`

    Prints a handle, which gives the exact original back; of several files, one a line, in their
    order (--json has the names). No model is loaded: text search finds the memory at once, and
    `clara-mlx flush`, or any process that compresses the memory file, makes latents of it. A file's
    path and the root of the repository that this is run in, as the project, are kept as metadata.

    With --tee, standard input is passed on whatever happens to the memory; the exit code says
    whether it was remembered. If nothing comes in, as from a command that failed, nothing is
    remembered, and the exit code is 1; with --tee it is 0, as many commands have no output.
    """
    if from_ is not None:
        if files or tee or source or session or meta:
            raise typer.BadParameter(
                "the sessions say all that is to be known: name only --db, --dry-run and --mask",
                param_hint="--from",
            )
        remember_sessions(from_, db, dry_run, mask, as_json)
        return
    if dry_run or mask:
        raise typer.BadParameter("they belong to --from", param_hint="--dry-run, --mask")
    files = list(dict.fromkeys(files or ()))
    for file in files:
        if not os.access(file, os.R_OK) or file.is_dir():
            raise ClaraError(f"{file}: not a file that can be read; nothing was remembered")
    metadata = parse_metadata(meta)
    if (root := find_root()) is not None:
        metadata.setdefault(PROJECT, root)
    handles: dict[str, str] = {}
    # What is passed on must not wait for the memory, nor suffer with it. Else the memory is opened
    # before anything is read, so that a wrong path is noticed at once.
    passed_on: bytes | None = None
    failure: NotPassedOn | None = None
    if tee and not files:
        try:
            passed_on = read_stdin(tee=True)
        except NotPassedOn as error:
            passed_on, failure = error.content, error
        if not passed_on and not allow_empty:
            note("clara-mlx: standard input was empty: nothing was remembered")
            return
    with open_memory(db, make=True) as memory:

        def add(content: bytes, metadata: dict[str, Any], what: str = "") -> str:
            with progress_bar(f"remembering {what}characters") as progress:
                return memory.remember(
                    _decode_if_text(content),
                    source=source,
                    session=session,
                    metadata=metadata,
                    progress=progress,
                )

        if not files:
            content = read_stdin() if passed_on is None else passed_on
            if not content and not allow_empty:
                raise ClaraError(
                    "standard input was empty: nothing was remembered; perhaps the command before "
                    "it failed (--allow-empty remembers it all the same)"
                )
            handles["-"] = add(content, metadata)
        for number, file in enumerate(files, 1):
            handles[str(file)] = add(
                read_bytes(file),
                {"path": os.path.abspath(file)} | metadata,
                f"{file.name} ({number} of {len(files)}), ",
            )
    lines = list(handles.values())
    if tee and not files:  # standard output has the input
        typer.echo(json.dumps(handles) if as_json else lines[0], err=True)
    else:
        emit(handles, lines, as_json)
    if failure:
        raise failure


def _decode_if_text(content: bytes) -> str | bytes:
    if encoding_of(content) != "utf-8":
        return content  # kept as it is; the memory knows how to read it
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content


@commands.command()
@with_filter
def recall(
    query: Annotated[str, typer.Argument(help="A question, or words to look for.")],
    db: Db = DEFAULT_DB,
    model: Model = None,
    compressor: Compressor = None,
    k: Count = 5,
    everywhere: Everywhere = False,
    project: Project = None,
    mode: Annotated[
        Literal["hybrid", "latent", "text"],
        typer.Option(help="How to search: by words (text), by memory tokens (latent), or both."),
    ] = "hybrid",
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare the query with every latent.")
    ] = False,
    *,
    where: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Find the chunks that match a query, with their exact lines; `>` marks the one that fits best.

    `clara-mlx recall "which test failed" -s pytest`

    The number in each heading is about the share of the query that was found, from 0 to 1; by
    latents alone it is the cosine. In a repository, memories of other projects are left out;
    `clara-mlx search` prints one line a hit.
    """
    if mode == "latent":
        require_compressor(model, compressor, "latent search")
    named = (None, None) if mode == "text" else (model, compressor)
    with open_memory(db, *named) as memory:
        where = Scope.chosen(everywhere, project).narrow(memory, where)
        hits = memory.recall(query, k, where, mode=mode, exact=exact)
        if mode == "hybrid":
            say_how_it_was_searched(memory)
    lines = [_format_hit(hit, f"{' + '.join(hit.found_by)} {hit.score:.2f}") for hit in hits]
    emit([dataclasses.asdict(hit) for hit in hits], lines or ["nothing found"], as_json)


def _format_hit(hit: Hit, found: str = "") -> str:
    """A hit for people; the line that fits best is marked if it is said how it was found.

    It is not a table, whose columns would fold the exact lines.
    """
    about = (f"[{hit.handle} line {hit.line}]", hit.source, found and f"({found})")
    lines = hit.text.rstrip().split("\n")
    if found and hit.matched_line is not None:
        marked = hit.matched_line - hit.line
        lines = [f"{'>' if i == marked else ' '} {line}" for i, line in enumerate(lines)]
    return "\n".join([" ".join(part for part in about if part), *lines, ""])


@commands.command()
@with_filter
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    db: Db = DEFAULT_DB,
    model: NeededModel = None,
    compressor: Compressor = None,
    k: Count = 5,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of the answer.")] = 128,
    floor: Annotated[
        float | None,
        typer.Option(
            help="Centred cosine, -1 to 1, below which a chunk is not relevant; default: measured."
        ),
    ] = None,
    *,
    where: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Answer a question from what is remembered, with the evidence.

    `clara-mlx ask "why did the build fail?" --model clara-7b-q8`

    Only compressed memories are read (see `clara-mlx flush`). The exact lines that support the
    answer follow it.
    """
    require_compressor(model, compressor, "asking")
    with open_memory(db, model, compressor, floor=floor) as memory:
        answer = None
        for piece in memory.stream_ask(question, k, where, max_tokens=max_tokens):
            if not isinstance(piece, str):
                answer = piece
            elif not as_json:
                typer.echo(printable(piece), nl=False)
    assert answer is not None  # the last piece
    if not answer.answered and not as_json:
        typer.echo(printable(answer.text))
    lines = ["\n" if answer.evidence else "", *map(_format_hit, answer.evidence)]
    if not answer.answered:
        lines.insert(
            1, "(this compressor doesn't answer: above is what it keeps of these chunks)\n"
        )
    if not answer.grounded:
        lines.insert(1, "(not grounded: none of these words stands in what it was given from)\n")
    if answer.evidence:
        tokens = answer.tokens_read + answer.tokens_saved
        lines.append(f"{answer.tokens_read:,} tokens read instead of {tokens:,}")
    emit(dataclasses.asdict(answer), lines, as_json)


@commands.command()
def original(
    handle: Annotated[str, typer.Argument(help="The handle that `remember` printed.")],
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Print the exact original of a memory, byte for byte.

    `clara-mlx original m-1f2e3d4c5b > pytest.log`

    With --json: the original with its metadata, as `export` writes them.
    """
    with open_memory(db) as memory:
        content = memory.original_bytes(handle)
        if as_json:
            memory.export(sys.stdout, {"handle": handle})
            sys.stdout.flush()
        else:
            write_bytes(content)


@commands.command()
def flush(
    db: Db = DEFAULT_DB,
    model: NeededModel = None,
    compressor: Compressor = None,
    as_json: Json = False,
) -> None:
    """Compress everything that was remembered without a model.

    `clara-mlx flush --model clara-7b-q8`

    It can be interrupted at any time; the next run continues where this one stopped.
    """
    require_compressor(model, compressor, "compressing")
    with (
        open_memory(db, model, compressor, compress=True) as memory,
        progress_bar("compressing texts") as progress,
    ):
        memory.flush(progress=progress)
        figures = dataclasses.asdict(memory.status())
    emit(figures, _summarise(figures), as_json)


@commands.command()
def recompress(
    db: Db = DEFAULT_DB,
    model: NeededModel = None,
    compressor: Compressor = None,
    as_json: Json = False,
) -> None:
    """Move a memory to another model or compressor: compress all originals again.

    `clara-mlx recompress --model clara-7b-q4`

    Originals, handles and text search can be used in the meantime. It can be interrupted; the next
    run, or `clara-mlx flush`, continues it. In a team's database the old model answers until all is
    compressed again, and `clara-mlx work` with the new one helps on other machines.
    """
    require_compressor(model, compressor, "recompressing")
    with (
        open_memory(db, model, compressor) as memory,
        progress_bar("recompressing texts") as progress,
    ):
        memory.recompress(progress=progress)
        figures = dataclasses.asdict(memory.status())
    emit(figures, _summarise(figures), as_json)


def _summarise(figures: dict[str, Any]) -> list[str]:
    lines = [f"{figures['compressed']:,} of {figures['chunks']:,} chunks are compressed"]
    if figures["failed"]:
        lines.append(
            f"{figures['failed']:,} texts could not be compressed; the last error: "
            f"{figures['last_error']}"
        )
    return lines
