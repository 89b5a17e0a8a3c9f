"""The command that shows what the gateway was sent, what it sent on, and what that saved: stats."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.options import DEFAULT_DB, After, Before, Db, Most, Session, Skip, open_memory
from clara_mlx.cli.output import Json, emit, printable, written_time
from clara_mlx.cli.scope import Everywhere, Project, Scope

if TYPE_CHECKING:
    from rich.table import Table

    from clara_mlx.store.sums import Sums

commands = typer.Typer()

Agent = Annotated[str | None, typer.Option("--agent", help="Only what this agent asked.")]


class By(StrEnum):
    """What sums are shown for."""

    day = "day"
    session = "session"
    project = "project"
    agent = "agent"
    model = "model"


@commands.command()
def stats(
    db: Db = DEFAULT_DB,
    by: Annotated[By, typer.Option("--by", help="What each row is for.")] = By.day,
    session: Session = None,
    agent: Agent = None,
    after: After = None,
    before: Before = None,
    sort: Annotated[
        str, typer.Option("--sort", help="What comes first: last_at, tokens_in, prefilled, ...")
    ] = "last_at",
    most: Most = 14,
    skip: Skip = 0,
    everywhere: Everywhere = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Show what the gateway was sent, what it sent on, and what that saved.

    `clara-mlx stats`; `clara-mlx stats --by session --after yesterday`; `clara-mlx stats --all`

    The figures are kept in the memory's file, so they outlive the gateway. Tokens that were cached
    are those that the reasoner's server reports; where it does not, they are estimated, and that is
    said. In a repository, other projects are left out.
    """
    where = {
        "session": session,
        "agent": agent,
        "after": after and after.timestamp(),
        "before": before and before.timestamp(),
    }
    where = {key: value for key, value in where.items() if value is not None}
    with open_memory(db) as memory:
        where = Scope.chosen(everywhere, project).narrow_ledger(memory, where)
        total = memory.ledger.sums((), where)
        rows = memory.ledger.sums([by.value], where, sort=sort, most=most + 1, skip=skip)
    if not total:
        emit({"total": None, "by": by.value, "rows": []}, [_nothing_counted()], as_json)
        return
    more = len(rows) > most
    result = {"total": _figures(total[0]), "by": by.value, "rows": [*map(_figures, rows[:most])]}
    lines: list[Any] = [*_summary(total[0]), "", _table(by.value, rows[:most])]
    if more:
        lines.append(f"more: --skip {skip + most}")
    emit(result, lines, as_json)


def _nothing_counted() -> str:
    return "nothing was counted yet: `clara-mlx serve` counts what it sends"


def _figures(sums: Sums) -> dict[str, Any]:
    """Sums as JSON: only the keys that they are for, and what was saved."""
    given = {key: value for key, value in dataclasses.asdict(sums).items() if value is not None}
    return given | {"saved": sums.saved}


def _summary(sums: Sums) -> Iterator[str]:
    yield (
        f"{sums.requests:,} requests, {sums.rounds:,} prompts, "
        f"{written_time(sums.first_at)} to {written_time(sums.last_at)}"
    )
    yield f"{sums.tokens_in:>14,} tokens there were"
    yield f"{sums.tokens_sent:>14,} were sent ({_share(sums.tokens_sent, sums.tokens_in)})"
    estimated = f"; estimated for {sums.estimated:,} prompts" if sums.estimated else ""
    yield (
        f"{sums.cached:>14,} of them were cached, {sums.prefilled:,} had to be read "
        f"({_share(sums.prefilled, sums.tokens_in)} of what there was{estimated})"
    )
    yield (
        f"{sums.compactions:>14,} compactions, of {sums.compacted:,} texts; "
        f"{sums.memory_calls:,} facts asked back"
    )
    if sums.fallbacks or sums.failures:
        yield (
            f"{sums.failures:>14,} prompts had no answer; the fallback answered {sums.fallbacks:,}"
        )


def _table(by: str, rows: Sequence[Sums]) -> Table:
    from rich.table import Table

    table = Table(by, box=None)
    for name in ("requests", "there were", "sent", "share", "read", "compactions", "asked back"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            printable(getattr(row, by) or "(not known)"),
            f"{row.requests:,}",
            f"{row.tokens_in:,}",
            f"{row.tokens_sent:,}",
            _share(row.tokens_sent, row.tokens_in),
            f"{row.prefilled:,}",
            f"{row.compactions:,}",
            f"{row.memory_calls:,}",
        )
    return table


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "-"
