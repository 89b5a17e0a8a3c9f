"""`clara-mlx plan`: what fits a Mac's memory, as tables, as JSON, or as the commands to run it."""

from __future__ import annotations

from dataclasses import asdict, replace
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clara_mlx.cli.output import Json, emit, printable
from clara_mlx.cli.plan_overview import complete_reasoner, show_overview
from clara_mlx.cli.plan_words import capacity, gigabytes, in_words
from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from clara_mlx.plan.planner import Planner, Setup

commands = typer.Typer()

# Rows of the second table: bits per weight that are compared, if the reasoner comes in them.
_COMPARED_BITS = (8, 6, 4, 3, 2)


@commands.command()
def plan(
    memory: Annotated[
        float | None,
        typer.Option(help="The Mac's memory in GB as sold, e.g. 128; by default this machine's."),
    ] = None,
    reasoner: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete_reasoner,
            help="A model folder, a config.json, or a known name; without one, all known ones.",
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(help="The reasoner's bits per weight; by default as it is stored, or 4."),
    ] = None,
    group_size: Annotated[
        int, typer.Option(help="How many weights share a scale: 32, 64 or 128.")
    ] = 64,
    context: Annotated[
        int, typer.Option(min=1, help="How many tokens each conversation has.")
    ] = 32768,
    kv_bits: Annotated[
        Literal["16", "8", "4"], typer.Option(help="Bits per value of the reasoner's KV cache.")
    ] = "16",
    sequences: Annotated[
        int, typer.Option(min=1, help="How many conversations run at the same time.")
    ] = 1,
    prefill_step: Annotated[
        int, typer.Option(min=1, help="How many prompt tokens the reasoner reads per pass.")
    ] = 2048,
    clara: Annotated[
        str,
        typer.Option(
            "--model",
            help="A model folder; q8, q6 or q4 for CLaRa-7B; or none if it is swapped out.",
        ),
    ] = "q8",
    wired_limit: Annotated[
        float | None,
        typer.Option(help="The GPU's memory limit in GB, if you know it."),
    ] = None,
    reserve: Annotated[
        float, typer.Option(min=0, help="GB to leave for macOS and other programs.")
    ] = 8,
    chips: Annotated[
        bool,
        typer.Option("--chips", help="How fast CLaRa-7B could be at best on Macs from M1 to M5."),
    ] = False,
    as_script: Annotated[
        bool, typer.Option("--script", help="Print the commands that start both servers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute whether a reasoner and CLaRa fit a Mac's memory together, and what would fit.

    `clara-mlx plan` lists the known reasoners that fit this machine.

    `clara-mlx plan --memory 128 --reasoner Qwen3-235B-A22B --bits 3` shows one in detail.

    `clara-mlx plan --chips` shows the shortest times that known Macs could reach.

    All figures are computed from tensor shapes and documented limits; nothing is measured. The
    exit status is 1 if nothing fits.
    """
    if chips:
        _show_chips(as_json)
        return
    from clara_mlx.plan.inputs import NamedClara, NamedReasoner
    from clara_mlx.plan.mac import mac_of
    from clara_mlx.plan.planner import Planner, Setup
    from clara_mlx.plan.script import start_script

    mac = mac_of(memory, wired_limit, reserve)
    named_clara = NamedClara(clara)
    wanted = Setup(
        bits=bits or 4,
        kv_bits=int(kv_bits),
        context=context,
        sequences=sequences,
        prefill_step=prefill_step,
        clara_bits=named_clara.bits,
    )
    if reasoner is None:
        if as_script:
            raise typer.BadParameter(
                "say which reasoner to start; `clara-mlx plan` lists those that fit",
                param_hint="--reasoner",
            )
        if not show_overview(mac, named_clara, wanted, bits, group_size, as_json):
            raise typer.Exit(1)
        return
    named = NamedReasoner(reasoner, bits, group_size)
    planner = Planner(mac, named, named_clara)
    asked = replace(wanted, bits=named.asked.bits)
    nearest = planner.nearest(asked)
    if as_script:
        if nearest is None:
            raise ClaraError(
                f"{named.name} does not fit this Mac in any setup; without --script, tables say why"
            )
        model, made_by = named.folder(nearest.bits)
        folder = named_clara.folder(nearest.clara_bits or asked.clara_bits)
        script = start_script(planner, nearest, model, folder, made_by)
        if nearest != asked:
            fits = in_words(nearest)
            script = f"# This setup does not fit. The nearest one that fits: {fits}.\n{script}"
        emit({"script": script}, [script.rstrip("\n")], as_json)
        return

    compared = [
        replace(asked, bits=other)
        for other in sorted({*_COMPARED_BITS, asked.bits}, reverse=True)
        if other in named.choices
    ]
    notes = [f"sizes of {named.name}: {named.source}"]
    if (longest := named.asked.longest_context) and context > longest:
        notes.append(f"note: {named.name}'s config states a context of at most {longest:,} tokens")
    if not named.asked.is_trimmable:
        notes.append(
            f"note: the cache of {named.name} can't be trimmed, so a changed prompt is read anew; "
            "the gateway reckons with it if it is given the reasoner's folder (--tokenizer)"
        )
    emit(
        {
            "basis": "computed from tensor shapes and documented limits; nothing was measured",
            "mac": asdict(mac) | {"ceiling": mac.ceiling},
            "reasoner": {
                "name": named.name,
                "source": named.source,
                "cache": "trimmable" if named.asked.is_trimmable else "whole",
            },
            "asked": _describe(planner, asked),
            "nearest": _describe(planner, nearest) if nearest else None,
            "by_bits": [_describe(planner, setup) for setup in compared],
        },
        [
            f"{printable(named.name)} and CLaRa on a Mac with {capacity(mac.memory)}: "
            f"{in_words(asked)}. Computed, not measured.",
            _parts_table(planner, asked),
            *_verdict_lines(planner, asked, nearest),
            _bits_table(planner, compared),
            *notes,
        ],
        as_json,
    )
    if nearest is None:
        raise typer.Exit(1)


def _show_chips(as_json: bool) -> None:
    """Print what no program can beat on each known Mac, and where the rates were read."""
    from clara_mlx.plan.known_macs import SOURCES, limits
    from clara_mlx.speed.grids_of_limits import known_macs_grid

    rows = limits()
    basis = "computed from published rates at their peak; nothing was measured"
    sources = [f"{one['what']}: {one['where']} ({one['read']})" for one in SOURCES.values()]
    result = {"basis": basis, "sources": SOURCES, "macs": rows}
    emit(result, [known_macs_grid(rows).to_rich(), *sources], as_json)


def _describe(planner: Planner, setup: Setup) -> dict[str, Any]:
    fits = planner.fits(setup)
    return {
        "setup": asdict(setup),
        "parts": [asdict(part) for part in planner.parts(setup)],
        "total_bytes": planner.total(setup),
        "fits": fits,
        "iogpu_wired_limit_mb": planner.sysctl_mb(setup) if fits else None,
    }


def _parts_table(planner: Planner, setup: Setup) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("part")
    table.add_column("computed from")
    table.add_column("GB", justify="right")
    for part in planner.parts(setup):
        table.add_row(part.name, part.how, gigabytes(part.nbytes))
    table.add_section()
    table.add_row("together", "", gigabytes(planner.total(setup)))
    return table


def _verdict_lines(planner: Planner, asked: Setup, nearest: Setup | None) -> list[str]:
    """Whether the setup fits, and if not, by how much and what would."""
    mac = planner.mac
    lines = [
        f"limit of GPU memory: {gigabytes(mac.wired_limit)} GB ({mac.limit_source}); "
        f"at most {gigabytes(mac.ceiling)} GB if {gigabytes(mac.reserve)} GB are left for macOS"
    ]
    if nearest == asked:
        return [*lines, f"It fits{_sysctl_in_words(planner, asked)}."]
    lines.append(
        f"It does not fit: {gigabytes(planner.total(asked) - mac.ceiling)} GB too much. It needs a "
        f"Mac with at least {ceil(planner.smallest_memory(asked) / 2**30):,} GB."
    )
    weights = planner.reasoner(asked.bits).weight_bytes
    if weights > mac.ceiling:
        lines.append(f"The reasoner's weights alone are {gigabytes(weights)} GB.")
    if nearest is None:
        return [*lines, "Nothing smaller fits either."]
    return [
        *lines,
        f"The nearest setup that fits: {in_words(nearest)}. "
        f"Together {gigabytes(planner.total(nearest))} GB{_sysctl_in_words(planner, nearest)}.",
    ]


def _sysctl_in_words(planner: Planner, setup: Setup) -> str:
    megabytes = planner.sysctl_mb(setup)
    return f", after sudo sysctl iogpu.wired_limit_mb={megabytes}" if megabytes else ""


def _bits_table(planner: Planner, setups: Sequence[Setup]) -> Table:
    """The setups side by side, each with CLaRa in memory and with CLaRa swapped out."""
    from rich.table import Table

    table = Table(
        caption="sysctl: the value to raise iogpu.wired_limit_mb to", caption_justify="left"
    )
    for name in ("bits", "with scales", "weights GB", "together GB", "", "without CLaRa GB", ""):
        table.add_column(name, justify="right" if name else "left")
    for setup in setups:
        model = planner.reasoner(setup.bits)
        table.add_row(
            str(setup.bits),
            f"{model.bits_per_weight:.2f}",
            gigabytes(model.weight_bytes),
            *_total_cells(planner, setup),
            *_total_cells(planner, replace(setup, clara_bits=None)),
        )
    return table


def _total_cells(planner: Planner, setup: Setup) -> tuple[str, str]:
    total = planner.total(setup)
    if not planner.fits(setup):
        return gigabytes(total), f"{gigabytes(total - planner.mac.ceiling)} too much"
    megabytes = planner.sysctl_mb(setup)
    return gigabytes(total), f"fits, sysctl {megabytes}" if megabytes else "fits"
