"""What `clara-mlx plan` says if no reasoner is named: which known ones fit this Mac, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from clara_mlx.cli.output import emit, progress_bar
from clara_mlx.cli.plan_words import capacity, gigabytes, without_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from clara_mlx.errors import Progress
    from clara_mlx.plan.inputs import NamedClara
    from clara_mlx.plan.mac import Mac
    from clara_mlx.plan.planner import Setup


@dataclass(frozen=True)
class _Row:
    """A known reasoner on this Mac: the nearest setup that fits, or how much it would need."""

    name: str
    parameters: int
    asked: Setup
    setup: Setup  # the nearest that fits; if none does, the one that was asked for
    fits: bool
    cost: float  # of that setup, as `planner.cost` has it; 0 if nothing is given up
    total: int  # bytes of that setup
    sysctl: int | None  # the iogpu.wired_limit_mb that it needs
    smallest_memory: int  # bytes of a Mac for the setup that was asked for


def complete_reasoner(incomplete: str) -> list[str]:
    """The known reasoners whose names begin with what was typed, in upper or lower case."""
    from clara_mlx.plan.reasoners import REASONERS

    return [name for name in REASONERS if name.lower().startswith(incomplete.lower())]


def show_overview(
    mac: Mac,
    clara: NamedClara,
    wanted: Setup,
    bits: int | None,
    group_size: int,
    as_json: bool,
) -> bool:
    """Print which known reasoners fit beside CLaRa; returns whether any does.

    Args:
        mac: The machine.
        clara: The CLaRa that runs beside the reasoner.
        wanted: The setup to start from.
        bits: The reasoner's bits per weight; None means as its config says, or 4.
        group_size: Weights that share a scale.
        as_json: Print JSON in place of the table.
    """
    with progress_bar("computing") as progress:
        rows = list(_rows(mac, clara, wanted, bits, group_size, progress))
    # First those that give up least, of these the largest.
    rows.sort(
        key=lambda row: (
            (not row.fits, row.cost, -row.parameters)
            if row.fits
            else (not row.fits, 0.0, row.smallest_memory)
        )
    )
    fitting = [row for row in rows if row.fits]
    lines: list[Any] = [
        f"Reasoners and CLaRa on a Mac with {capacity(mac.memory)}, wanted: "
        f"{without_weights(wanted)}. Computed, not measured.",
        f"limit of GPU memory: {gigabytes(mac.wired_limit)} GB ({mac.limit_source}); "
        f"at most {gigabytes(mac.ceiling)} GB if {gigabytes(mac.reserve)} GB are left for macOS",
        _table(rows),
    ]
    if fitting:
        lines.append(
            f"`clara-mlx plan --reasoner {fitting[0].name}` shows one part by part; with --script "
            "it prints the commands that start it. (The order: what gives up least, then size.)"
        )
    else:
        least = rows[0]
        lines.append(
            f"None of them fits. The one that needs least is {least.name}: a Mac with at least "
            f"{_memory(least)}. A smaller one of your own: --reasoner FOLDER."
        )
    emit(
        {
            "basis": "computed from tensor shapes and documented limits; nothing was measured",
            "mac": asdict(mac) | {"ceiling": mac.ceiling},
            "wanted": asdict(wanted),
            "reasoners": [asdict(row) for row in rows],
        },
        lines,
        as_json,
    )
    return bool(fitting)


def _rows(
    mac: Mac,
    clara: NamedClara,
    wanted: Setup,
    bits: int | None,
    group_size: int,
    progress: Progress,
) -> Iterator[_Row]:
    from clara_mlx.plan.inputs import NamedReasoner
    from clara_mlx.plan.planner import Planner, cost
    from clara_mlx.plan.reasoners import REASONERS

    for number, name in enumerate(REASONERS):
        progress(number, len(REASONERS))
        named = NamedReasoner(name, bits, group_size)
        planner = Planner(mac, named, clara)
        asked = replace(wanted, bits=named.asked.bits)
        if named.asked.cache_problem:
            asked = replace(asked, kv_bits=16)  # mlx-lm can't quantise this cache
        nearest = planner.nearest(asked)
        setup = nearest or asked
        yield _Row(
            name=name,
            parameters=named.asked.parameters,
            asked=asked,
            setup=setup,
            fits=nearest is not None,
            cost=cost(asked, setup),
            total=planner.total(setup),
            sysctl=planner.sysctl_mb(setup) if nearest else None,
            smallest_memory=planner.smallest_memory(asked),
        )


def _table(rows: list[_Row]) -> Table:
    from rich.table import Table

    table = Table(
        caption="sysctl: the value to raise iogpu.wired_limit_mb to; needs: the smallest Mac for "
        "what was wanted",
        caption_justify="left",
    )
    for name in ("reasoner", "", "bits", "together GB", "sysctl", "gives up", "needs"):
        table.add_column(name, justify="right" if name in ("bits", "together GB") else "left")
    for row in rows:
        table.add_row(
            row.name,
            "fits" if row.fits else "too large",
            str(row.setup.bits),
            gigabytes(row.total),
            str(row.sysctl or ""),
            _given_up(row) if row.fits else "",
            _memory(row),
        )
    return table


def _given_up(row: _Row) -> str:
    """What the setup that fits has less of than the one that was asked for."""
    asked, setup = row.asked, row.setup
    parts = []
    if setup.bits != asked.bits:
        parts.append(f"{setup.bits} bits in place of {asked.bits}")
    if setup.context != asked.context:
        parts.append(f"{setup.context:,} tokens")
    if setup.sequences != asked.sequences:
        parts.append(f"{setup.sequences} at a time")
    if setup.kv_bits != asked.kv_bits:
        parts.append(f"{setup.kv_bits}-bit KV cache")
    if setup.prefill_step != asked.prefill_step:
        parts.append(f"passes of {setup.prefill_step:,}")
    if setup.clara_bits != asked.clara_bits:
        parts.append(
            "CLaRa swapped out" if setup.clara_bits is None else f"CLaRa at {setup.clara_bits} bits"
        )
    return ", ".join(parts)


def _memory(row: _Row) -> str:
    return f"{ceil(row.smallest_memory / 2**30):,} GB"
