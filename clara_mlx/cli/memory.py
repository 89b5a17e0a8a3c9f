"""The memory's commands: remember, recall, ask, original, and compressing the backlog."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from clara_mlx.cli.options import (
    DEFAULT_DB,
    After,
    Before,
    Count,
    Db,
    Meta,
    Model,
    NeededModel,
    Session,
    Source,
    needed,
    opened,
    pairs,
    where_of,
)
from clara_mlx.cli.output import (
    Json,
    emit,
    progress_bar,
    read_bytes,
    read_stdin,
    shown,
    write_bytes,
)
from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from clara_mlx.memory.memory import Mode
    from clara_mlx.store.results import Hit

commands = typer.Typer()


@commands.command()
def remember(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files; standard input without any.")
    ] = None,
    db: Db = DEFAULT_DB,
    source: Source = None,
    session: Session = None,
    meta: Meta = None,
    tee: Annotated[
        bool, typer.Option("--tee", help="Pass standard input on, so that it is still seen.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remember a command's output or files; durable when it returns.

    `pytest 2>&1 | clara-mlx remember -s pytest`

    Prints the handle that gives the exact original back. No model is loaded: text search finds it
    at once, and `clara-mlx flush`, or any process that has the memory open with a model,
    compresses it. A file's path is kept as metadata.
    """
    named = list(dict.fromkeys(files or ()))
    for file in named:
        if not os.access(file, os.R_OK) or file.is_dir():
            raise ClaraError(f"{file}: can't be read as a file; nothing was remembered")
    described = pairs(meta)
    handles: dict[str, str] = {}
    with opened(db, make=True) as memory:  # before reading: a wrong path is found out at once
        piped = b"" if named else read_stdin(tee=tee)
        with progress_bar("remembering") as progress:
            if not named:
                handles["-"] = memory.remember(
                    _text(piped),
                    source=source,
                    session=session,
                    metadata=described,
                    progress=partial(progress, "characters"),
                )
            for number, file in enumerate(named, 1):
                what = f"{file.name} ({number} of {len(named)}), characters"
                handles[str(file)] = memory.remember(
                    _text(read_bytes(file)),
                    source=source,
                    session=session,
                    metadata={"path": os.path.abspath(file)} | described,
                    progress=partial(progress, what),
                )
    lines = [handle if name == "-" else f"{handle}  {name}" for name, handle in handles.items()]
    if tee and not named:  # standard output has the input
        typer.echo(json.dumps(handles) if as_json else lines[0], err=True)
    else:
        emit(handles, lines, as_json)


def _text(content: bytes) -> str | bytes:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content


@commands.command()
def recall(
    query: Annotated[str, typer.Argument(help="A question or words.")],
    db: Db = DEFAULT_DB,
    model: Model = None,
    k: Count = 5,
    mode: Annotated[str, typer.Option(help="latent, text or hybrid.")] = "hybrid",
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every latent.")] = False,
    source: Source = None,
    session: Session = None,
    meta: Meta = None,
    after: After = None,
    before: Before = None,
    as_json: Json = False,
) -> None:
    """Find the chunks that match a query, with their exact lines.

    `clara-mlx recall "which test failed" -s pytest`
    """
    where = where_of(source, session, meta, after, before)
    with opened(db, None if mode == "text" else model) as memory:
        hits = memory.recall(query, k, where, mode=cast("Mode", mode), exact=exact)
    lines = [_found(hit, f"{' + '.join(hit.found_by)} {hit.score:.4f}") for hit in hits]
    emit([dataclasses.asdict(hit) for hit in hits], lines or ["nothing found"], as_json)


def _found(hit: Hit, note: str = "") -> str:
    """A hit for people: no table, in whose columns the exact lines would be folded."""
    about = (f"[{hit.handle} line {hit.line}]", hit.source, note and f"({note})")
    return f"{' '.join(part for part in about if part)}\n{hit.text.rstrip()}\n"


@commands.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    db: Db = DEFAULT_DB,
    model: NeededModel = None,
    k: Count = 5,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the answer at most.")] = 128,
    floor: Annotated[
        float | None,
        typer.Option(help="Centred cosine, -1 to 1, below which a chunk is not relevant."),
    ] = None,
    source: Source = None,
    session: Session = None,
    meta: Meta = None,
    after: After = None,
    before: Before = None,
    as_json: Json = False,
) -> None:
    """Answer a question from what is remembered, with the evidence.

    `clara-mlx ask "why did the build fail?" --model clara-7b-q8`

    Only what is compressed is read (`clara-mlx flush`). The exact lines follow the answer.
    """
    where = where_of(source, session, meta, after, before)
    with opened(db, needed(model, "asking"), floor=floor) as memory:
        answer = None
        for piece in memory.stream_ask(question, k, where, max_tokens=max_tokens):
            if not isinstance(piece, str):
                answer = piece
            elif not as_json:
                typer.echo(shown(piece), nl=False)
    assert answer is not None  # the last piece is
    lines = ["\n" if answer.evidence else "", *map(_found, answer.evidence)]
    if answer.evidence:
        read, text = answer.tokens_read, answer.tokens_read + answer.tokens_saved
        lines.append(f"{read:,} tokens read in place of {text:,}")
    emit(dataclasses.asdict(answer), lines, as_json)


@commands.command()
def original(
    handle: Annotated[str, typer.Argument(help="What `remember` printed.")],
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Print the exact original of a memory, byte for byte.

    `clara-mlx original m-1f2e3d4c5b > pytest.log`

    With --json: the original and all that is known of it, as `export` writes it.
    """
    with opened(db) as memory:
        content = memory.original_bytes(handle)
        if as_json:
            memory.export(sys.stdout, {"handle": handle})
            sys.stdout.flush()
        else:
            write_bytes(content)


# -- compressing ---------------------------------------------------------------------------------


@commands.command()
def flush(db: Db = DEFAULT_DB, model: NeededModel = None, as_json: Json = False) -> None:
    """Compress everything that was remembered without a model.

    `clara-mlx flush --model clara-7b-q8`

    Can be interrupted at any time: the next run goes on where this one ended.
    """
    with (
        opened(db, needed(model, "compressing"), compress=True) as memory,
        progress_bar("compressing") as progress,
    ):
        memory.flush(progress=lambda done, total, _="": progress("contents", done, total))
        figures = dataclasses.asdict(memory.status())
    emit(figures, _compressed(figures), as_json)


@commands.command()
def recompress(
    db: Db = DEFAULT_DB,
    model: NeededModel = None,
    as_json: Json = False,
) -> None:
    """Move a memory to another model: its latents are made anew from the originals.

    `clara-mlx recompress --model clara-7b-q4`

    Originals and text search stay as they are meanwhile. Can be interrupted: the next run, or
    `clara-mlx flush`, goes on.
    """
    with (
        opened(db, needed(model, "recompressing")) as memory,
        progress_bar("recompressing") as progress,
    ):
        memory.recompress(progress=lambda done, total, _="": progress("contents", done, total))
        figures = dataclasses.asdict(memory.status())
    emit(figures, _compressed(figures), as_json)


def _compressed(figures: dict[str, Any]) -> list[str]:
    lines = [f"{figures['compressed']:,} of {figures['chunks']:,} chunks are compressed"]
    if figures["failed"]:
        lines.append(f"{figures['failed']:,} contents failed, last: {figures['last_error']}")
    return lines
