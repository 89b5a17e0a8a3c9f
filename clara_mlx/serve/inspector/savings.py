"""Savings over time: what there was, what was sent of it, and what of that a cache had."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.charts import Amount, Chart, draw
from clara_mlx.store.sums import Sums

#: Days that a page may show; the first is what it shows by itself.
SPANS = (30, 7, 90)

# Rows of each table beside that of the days.
_ROWS = 12


@dataclass(frozen=True)
class Savings:
    """What the page of savings shows."""

    span: int  # days
    all: Sums | None  # since the memory was made; None if nothing was counted
    sums: Sums | None  # of the days that are shown
    days: list[Sums]  # those on which anything was counted, latest first
    chart: Chart | None
    by: list[tuple[str, list[Sums]]]  # the same by agent, project and model


def read_savings(memory: Memory, span: int, today: date | None = None) -> Savings:
    """The sums of the last days.

    Args:
        memory: The memory file.
        span: The number of days; another number than one of `SPANS` is the first of these.
        today: The last day; by default that of this machine's clock.
    """
    span = span if span in SPANS else SPANS[0]
    today = today or date.today()
    every = [today - timedelta(days=back) for back in range(span - 1, -1, -1)]
    where = {"day": [day.isoformat() for day in every]}
    ledger = memory.ledger
    days = ledger.sums(["day"], where, sort="day")
    by = [
        (name, ledger.sums([name], where, sort="tokens_in", most=_ROWS))
        for name in ("agent", "project", "model")
    ]
    everything, sums = ledger.sums(), ledger.sums((), where)
    return Savings(
        span=span,
        all=everything[0] if everything else None,
        sums=sums[0] if sums else None,
        days=days,
        chart=_chart(every, {one.day: one for one in days}) if days else None,
        by=[(name, rows) for name, rows in by if any(getattr(row, name) for row in rows)],
    )


def _chart(every: list[date], by_day: dict[str | None, Sums]) -> Chart:
    found = [by_day.get(day.isoformat()) for day in every]
    amounts = [
        Amount(one.tokens_in, one.tokens_sent, one.cached) if one else Amount(0, 0, 0)
        for one in found
    ]
    said = [
        f"{_name(day)}: "
        + (
            f"{one.tokens_in:,} tokens without compaction, {one.tokens_sent:,} sent, "
            f"{one.cached:,} of them cached"
            if one
            else "nothing"
        )
        for day, one in zip(every, found, strict=True)
    ]
    return draw(amounts, said, (_name(every[0]), _name(every[-1])), [False] * len(every))


def _name(day: date) -> str:
    return day.strftime("%-d %b")
