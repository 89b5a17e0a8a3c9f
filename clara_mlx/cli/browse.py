"""Commands that show what is remembered: list, show, search."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.options import (
    DEFAULT_DB,
    Compressor,
    Count,
    Db,
    Model,
    Most,
    Skip,
    open_memory,
    with_filter,
)
from clara_mlx.cli.output import Json, emit, printable, written_time
from clara_mlx.cli.scope import Everywhere, Project, Scope
from clara_mlx.cli.searched import say_how_it_was_searched

if TYPE_CHECKING:
    from clara_mlx.memory.listing import Description
    from clara_mlx.serve.inspector.fates import Fate
    from clara_mlx.store.browsing import Listed
    from clara_mlx.store.results import Hit

commands = typer.Typer()

# Characters of a title, and of a line that was found.
_TITLE = 80
_LINE = 300

# Lines of a block, and facts of a kind, that `show` prints; --json has all.
_BLOCK_LINES = 30
_FACTS = 12

# What became of a fact, as `inspector.fates` names it, in words.
_FATES: dict[Fate, str] = {
    "shown": "shown in the text that is sent",
    "near": "one call away: on the first page of `expand`",
    "behind": "behind the handle: further on in the original",
}

# Times a memory was used that `show` prints.
_USES = 10


class Order(StrEnum):
    """How a list is sorted."""

    newest = "newest"
    oldest = "oldest"
    largest = "largest"
    source = "source"
    session = "session"


@commands.command("list")
@with_filter
def list_(
    db: Db = DEFAULT_DB,
    sort: Annotated[Order, typer.Option("--sort", help="What comes first.")] = Order.newest,
    most: Most = 20,
    skip: Skip = 0,
    everywhere: Everywhere = False,
    project: Project = None,
    *,
    where: dict[str, Any],
    as_json: Json = False,
) -> None:
    """List what is remembered, newest first.

    `clara-mlx list`; `clara-mlx list -s pytest --after 2h`; `clara-mlx list --all --sort largest`

    In a repository, memories of other projects are left out. Options choose by source, session,
    time and metadata; --skip shows what comes next.
    """
    from rich.table import Table

    with open_memory(db) as memory:
        where = Scope.chosen(everywhere, project).narrow(memory, where)
        total = memory.count(where)
        rows = memory.page(where, most, skip, sort.value)
    table = Table("handle", "time", "source", "session", "bytes", "what", box=None)
    for row in rows:
        table.add_row(
            row.handle,
            written_time(row.created_at),
            printable(row.source or ""),
            printable((row.session or "")[:24]),
            f"{row.length:,}",
            printable(_title(row)),
        )
    end = skip + len(rows)
    lines: list[Any] = [table] if rows else ["nothing is remembered that matches"]
    if skip or end < total:
        more = f"; next: --skip {end}" if end < total else ""
        lines.append(f"{min(skip + 1, end):,} to {end:,} of {total:,}{more}")
    found = [dataclasses.asdict(row) for row in rows]
    emit({"total": total, "skipped": skip, "memories": found}, lines, as_json)


def _title(row: Listed) -> str:
    """What a memory is called: the command or path it came from, or its first line."""
    named = (row.metadata.get(key) for key in ("command", "path", "title"))
    title = next((one for one in named if isinstance(one, str) and one.strip()), "")
    title = title or row.begins.strip().partition("\n")[0]
    return title.replace("\n", " ")[:_TITLE]


@commands.command()
def show(
    handle: Annotated[str, typer.Argument(help="The handle that `list` or `remember` printed.")],
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Show one memory: where it came from, where it was used, and what stood in its place.

    `clara-mlx show m-1f2e3d4c5b6a`

    Of each fact in it you see whether the reasoner has it: in the text that is sent in its place,
    on the page that one call of `expand` gives, or further on in the original. `clara-mlx original`
    prints the memory itself.
    """
    from clara_mlx.serve.inspector.fates import first_page_end, follow, tally

    with open_memory(db) as memory:
        about = memory.describe(handle)
        text = memory.text(handle) if about.sent else ""
        first_page = first_page_end(memory, handle, text) if about.sent else 0
    # Its own block is the first; a fold that tells of it, too, says less.
    facts = follow(text, 0, len(text), about.sent[0] if about.sent else None, first_page)
    counts = tally(facts)
    result = dataclasses.asdict(about) | {
        "facts": [dataclasses.asdict(fact) for fact in facts],
        "fates": {fate: counts[fate] for fate in _FATES},
    }
    lines = list(_about(about))
    if about.standing:
        lines += ["", "What stands in its place:"]
        for one in about.standing:
            lines.append(f"-- {one.kind}, sent at {one.places:,} places")
            block = one.text.split("\n")
            lines += [f"   {line}" for line in block[:_BLOCK_LINES]]
            if len(block) > _BLOCK_LINES:
                lines.append(f"   ({len(block) - _BLOCK_LINES:,} more lines; --json has all)")
        lines += ["", "Its facts, and what became of them:"]
        for fate, says in _FATES.items():
            some = list(dict.fromkeys(one.text for one in facts if one.fate == fate))
            shown = ", ".join(some[:_FACTS]) + (", ..." if len(some) > _FACTS else "")
            lines.append(f"{counts[fate]:>6,} {says}{': ' if shown else ''}{shown}")
    else:
        lines += [
            "",
            "Nothing stands in its place: a conversation that has it sends it whole.",
        ]
    emit(result, lines, as_json)


def _about(about: Description) -> Iterator[str]:
    """What is known of a memory, a line for each thing."""
    row = about.memory
    yield f"{row.handle}  {_title(row)}"
    for name, value in {
        "time": written_time(row.created_at),
        "source": row.source,
        "session": row.session,
        **{key: str(value) for key, value in row.metadata.items()},
    }.items():
        if value:
            yield f"{name:>12}  {value}"
    yield f"{'size':>12}  {row.length:,} bytes, {about.lines:,} lines, kept as {row.kind}"
    tokens = "" if about.tokens is None else f", {about.tokens:,} tokens"
    waits = "wait for compression" if row.pending else "are compressed, or need no more"
    yield f"{'chunks':>12}  {about.chunks:,}{tokens}; they {waits}"
    if about.twins:
        yield f"{'same text':>12}  {', '.join(about.twins)}"
    for use in about.uses[:_USES]:
        how = "left a prompt" if use.how == "compacted" else f"asked back by {use.how}"
        yield f"{'used':>12}  {written_time(use.at)}  {how}  {use.session}"
    if len(about.uses) > _USES:
        yield f"{'':>12}  ({len(about.uses) - _USES:,} more; --json has them)"


@commands.command()
@with_filter
def search(
    query: Annotated[str, typer.Argument(help="A question, or words to look for.")],
    db: Db = DEFAULT_DB,
    model: Model = None,
    compressor: Compressor = None,
    k: Count = 10,
    everywhere: Everywhere = False,
    project: Project = None,
    *,
    where: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Find lines that match a query: one line a hit, with its handle and its number.

    `clara-mlx search "KeyError colour" -s pytest`

    `clara-mlx recall` prints the whole passages. In a repository, memories of other projects are
    left out. It says how it has searched if not everything could be compared by meaning.
    """
    with open_memory(db, model, compressor) as memory:
        where = Scope.chosen(everywhere, project).narrow(memory, where)
        hits = memory.recall(query, k, where or None)
        say_how_it_was_searched(memory)
    found = [_found(hit) for hit in hits]
    width = max((len(f"{one['handle']}:{one['line']}") for one in found), default=0)
    words = {word for word in query.lower().split() if len(word) > 1}
    lines = [
        f"{one['handle']}:{one['line']}".ljust(width)
        + f"  {printable(one['source'] or '-'):<12}  "
        + _highlight(printable(one["text"]).strip()[:_LINE], words)
        for one in found
    ]
    if as_json:
        emit(found, [], as_json)
        return
    for line in lines or ["nothing found"]:
        typer.echo(line)


def _found(hit: Hit) -> dict[str, Any]:
    """A hit as one line of its original."""
    number = hit.matched_line if hit.matched_line is not None else hit.line
    lines = hit.text.split("\n")
    text = hit.matched or lines[min(number - hit.line, len(lines) - 1)]
    kept = ("handle", "source", "session", "created_at", "score", "found_by")
    return {"line": number, "text": text} | {name: getattr(hit, name) for name in kept}


def _highlight(line: str, words: set[str]) -> str:
    """A line with the words of a query in bold, which a terminal shows and a pipe does not get."""
    pieces = []
    for piece in line.split(" "):
        bare = piece.lower().strip(".,:;()[]{}'\"`")
        found = bare and any(word in bare or bare in word for word in words)
        pieces.append(typer.style(piece, bold=True) if found else piece)
    return " ".join(pieces)
