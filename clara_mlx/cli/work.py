"""The command that works through a memory's backlog, `work`, and how all workers are shown."""

from __future__ import annotations

import dataclasses
import logging
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.notes import note, start_logging
from clara_mlx.cli.options import (
    DEFAULT_DB,
    Compressor,
    Db,
    NeededModel,
    open_memory,
    require_compressor,
)
from clara_mlx.cli.output import Json, emit, printable, progress_bar, written_time

if TYPE_CHECKING:
    from rich.table import Table

    from clara_mlx.memory.working import Worked, WorkLeft

commands = typer.Typer()


@commands.command()
def work(
    db: Db = DEFAULT_DB,
    model: NeededModel = None,
    compressor: Compressor = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when nothing waits; else wait for what comes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compress what a team remembers, as one of any number of workers.

    `clara-mlx work --db postgresql://db.example/memory --model clara-7b-q8`

    Start it on each Mac that has time to spare, all with the same model; `clara-mlx status` shows
    them. Each takes texts that no other has, and keeps them for a minute at a time: if it dies,
    others do the rest. An interrupt or SIGTERM ends it when its current batch is written. It goes
    on by itself when the database is away for a while. A memory file takes one worker at a time;
    others wait until it ends.

    To move a team's memory to another model, start `clara-mlx recompress` once with the new one.
    Workers with the new model then fill its place, beside those with the old one, which answers
    until all is done.
    """
    require_compressor(model, compressor, "compressing")
    start_logging(logging.WARNING)
    # The worker says once that the database is away; its pool would say it at each try.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        # As it stays open, other commands borrow its model instead of opening their own.
        open_memory(db, model, compressor, lend=True) as memory,
        progress_bar("compressing texts") as progress,
    ):
        if not once:
            note("clara-mlx works; end it with Ctrl-C")
        worked = memory.work(
            once=once, watch=lambda now: progress(now.contents, now.contents + now.waiting)
        )
    emit(dataclasses.asdict(worked), _summarise(worked), as_json)


def _summarise(worked: Worked) -> list[str]:
    rate = 60 * worked.tokens / worked.seconds if worked.seconds else 0
    return [
        f"{worked.contents:,} texts done, {worked.chunks:,} chunks, {rate:,.0f} tokens a minute; "
        f"{worked.waiting:,} texts wait"
    ]


# -- in `clara-mlx status` -----------------------------------------------------------------------


def work_figures(left: WorkLeft) -> dict[str, Any]:
    """Workers, their pace and the time left, for programs."""
    return {
        "workers": [
            {
                "name": one.name,
                "compressor": one.compressor,
                "fingerprint": one.fingerprint,
                "since": one.since,
                "silent_seconds": round(one.silent_seconds, 1),
                "silent": one.is_silent,
                "contents": one.contents,
                "chunks": one.chunks,
                "chunks_per_minute": round(one.chunks_per_minute, 1),
                "tokens_per_minute": round(one.tokens_per_minute, 1),
            }
            for one in left.workers
        ],
        "chunks_left": left.chunks,
        "tokens_left": left.tokens,
        "seconds_left": left.seconds and round(left.seconds),
        "next": left.second and dataclasses.asdict(left.second),
    }


def work_lines(left: WorkLeft) -> Iterator[Table | str]:
    """The same for people; nothing if nobody works and nothing waits."""
    if left.workers:
        yield _table(left)
    if left.second:
        done = left.second.contents - left.second.left
        yield (
            f"it moves to {left.second.compressor} (model {left.second.fingerprint[:12]}): "
            f"{done:,} of {left.second.contents:,} texts; until all are done, the other one answers"
        )
    if left.seconds:
        yield (
            f"{left.chunks:,} chunks ({left.tokens:,} tokens) wait; "
            f"at this pace they are done in {_duration(left.seconds)}"
        )
    elif left.chunks:
        yield (
            f"{left.chunks:,} chunks ({left.tokens:,} tokens) wait, and nobody compresses them; "
            "`clara-mlx work` does"
        )


def _table(left: WorkLeft) -> Table:
    from rich.table import Table

    table = Table("worker", "model", "since", box=None)
    for name in ("heard", "chunks", "chunks/min", "tokens/min"):
        table.add_column(name, justify="right")
    for one in left.workers:
        machine, _, rest = one.name.partition(" ")
        table.add_row(
            printable(f"{machine.partition('/')[0]} {rest.partition(' ')[0]}"),
            printable(f"{one.compressor} {one.fingerprint[:12]}"),
            written_time(one.since),
            f"silent for {_duration(one.silent_seconds)}"
            if one.is_silent
            else f"{one.silent_seconds:.0f} s ago",
            f"{one.chunks:,}",
            f"{one.chunks_per_minute:,.0f}",
            f"{one.tokens_per_minute:,.0f}",
        )
    return table


def _duration(seconds: float) -> str:
    """A time span in the unit that suits it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} s"
