"""`clara-mlx move`: a memory goes to another database, or it is said what that would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clara_mlx.cli.output import Json, emit, printable, progress_bar
from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from clara_mlx.store.moving.move import Moved

commands = typer.Typer()

# Sentences about single rows that are shown; --json has up to a thousand.
_SHOWN = 20

# A move reads and looks up as a check does, and once more at the end to compare.
_LEAST = 2


@commands.command()
def move(
    source: Annotated[
        str, typer.Option("--from", help="The memory: a file, or postgresql://user@host/database.")
    ],
    target: Annotated[
        str, typer.Option("--to", help="Where it goes, likewise; it is made if it is new.")
    ],
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Read and look up everything, say what would be moved, and write nothing.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy a memory to another database: from a file to a team's PostgreSQL, or back.

    `clara-mlx move --from agent.db --to postgresql://clara@db.example/team --check`, then without

    All of it goes: originals, latents (if the target has none, or the same model's), blocks and the
    ledger, so that conversations go on there. The source is only read and stays as it is. What the
    target has is known by handle and hash and not sent again, so after an interruption the same
    command goes on; where the two differ, the target keeps its own, and the difference is listed.
    At the end every original is read back and compared by its SHA-256.
    """
    from clara_mlx.store.moving import move as moving
    from clara_mlx.store.moving.ends import open_ends

    with (
        open_ends(source, target, writes=not check) as (ours, theirs),
        progress_bar("checking" if check else "moving") as progress,
    ):
        done = (moving.check if check else moving.move)(ours, theirs, progress)
    tally = done.tally
    result = tally.to_dict() | {
        "check": check,
        "originals_compared": done.compared,
        "seconds": done.seconds,
    }
    if check:
        result["seconds_of_a_move_at_least"] = _LEAST * done.seconds
    emit(result, [*_describe(done, check), *map(printable, tally.sentences[:_SHOWN])], as_json)
    if tally.unsettled:
        raise ClaraError(
            f"{target}: rows that differ or could not be moved: {tally.unsettled:,}; see the list "
            "above. Nothing was overwritten"
        )


def _describe(done: Moved, check: bool) -> list[RenderableType]:
    from rich.table import Table

    tally = done.tally
    verb = "to be moved" if check else "moved"
    table = Table("table", verb, "there already", "differ", "left out", "of another model")
    for name, counts in tally.tables.items():
        numbers = (counts.moved, counts.there, counts.conflicts, counts.left, counts.other)
        table.add_row(name, *(f"{number:,}" for number in numbers))
    size = f"{tally.original_bytes / 1e6:,.1f} MB of originals"
    if tally.latent_bytes:
        size += f", {tally.latent_bytes / 1e6:,.1f} MB of latents"
    if check:
        return [
            table,
            f"{verb}: {size}",
            f"reading and looking up all of it took {done.seconds:,.1f} s; a move takes at least "
            f"{_LEAST * done.seconds:,.1f} s, and what the target needs to write",
        ]
    return [
        table,
        f"{verb}: {size}, in {done.seconds:,.1f} s",
        f"originals that were read back from the target and are the same: {done.compared:,}",
    ]
