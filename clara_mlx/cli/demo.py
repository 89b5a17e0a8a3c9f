"""`clara-mlx demo`: what this does for an agent, shown in a minute with a small model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.output import Json, emit
from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from clara_mlx.demo.exchange import Exchanged
    from clara_mlx.demo.story import Told

commands = typer.Typer()

# Lines of a block that are shown.
_BLOCK_LINES = 6


@commands.command()
def demo(
    gateway: Annotated[
        bool,
        typer.Option(
            "--gateway", help="Let a scripted agent work through the gateway, before and after."
        ),
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="An empty or new folder for project, model and memory, to look at later."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what it does, in a minute, without a network: run, remember, find, ask, give back.

    `clara-mlx demo`

    The model is clara-nano, which comes with this package: large enough to show how it works, and
    much too small for your own outputs.
    """
    with _folder(keep) as folder:
        if gateway:
            from clara_mlx.demo import exchange

            exchanged = exchange.work(folder, _step)
            emit(asdict(exchanged), list(lines_of_exchange(exchanged)), as_json)
        else:
            from clara_mlx.demo import story

            told = story.tell(folder, _step)
            emit(asdict(told), list(lines_of_story(told)), as_json)
    if keep is not None and not as_json:
        typer.echo(f"project, model and memory are in {keep}")


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="clara-mlx-demo-") as scratch:
            yield Path(scratch)
        return
    keep = keep.expanduser()
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise ClaraError(f"{keep}: it is not an empty folder; name a new one")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep


def _step(what: str) -> None:
    """Say on standard error what comes next, as some steps take seconds."""
    typer.echo(typer.style(what, dim=True), err=True)


def lines_of_story(told: Told) -> Iterator[Any]:
    """What people read of the story: lines and tables."""
    from rich.table import Table

    outputs = Table()
    for name in ("command", "handle"):
        outputs.add_column(name)
    for name in ("lines", "tokens", "memory tokens"):
        outputs.add_column(name, justify="right")
    for output in told.outputs:
        figures = (output.lines, output.tokens, output.memory_tokens)
        outputs.add_row(output.command, output.handle, *(f"{figure:,}" for figure in figures))
    yield "\nRemembered: every output as it came, and compressed into memory tokens."
    yield outputs
    found = told.found
    yield f"Found by its words ({found['words']}): {found['handle']}, line {found['line']}:"
    yield f"  {found['text'].strip()}"

    asked = Table()
    for name in ("question", "answer", "", "a line that has it"):
        asked.add_column(name)
    for one in told.asked:
        verdict = "right" if one.is_right else "wrong"
        asked.add_row(one.question, one.answer, verdict, one.evidence or "none of those found")
    right = sum(one.is_right for one in told.asked)
    yield (
        f"\nAsked: answers from memory tokens alone, {right} of {len(told.asked)} right. "
        "clara-nano has 2.3 million parameters; CLaRa has 7 billion."
    )
    yield asked

    originals = told.originals
    yield (
        f"\nGiven back: {originals['equal']} of {originals['of']} originals are the same "
        f"{originals['bytes']:,} bytes that the commands printed."
    )
    conversation = told.conversation
    saved = 1 - conversation["sent"] / conversation["tokens"]
    yield (
        f"\nIn a conversation: these outputs take about {conversation['tokens']:,} tokens; with "
        f"blocks in their place {conversation['sent']:,}, {saved:.0%} less. A block:"
    )
    block = conversation["block"].splitlines()
    yield from (f"  {line}" for line in block[:_BLOCK_LINES])
    if len(block) > _BLOCK_LINES:
        yield f"  ... ({len(block) - _BLOCK_LINES} more lines)"
    yield f"\nIt took {told.seconds:.0f} seconds. Next:"
    yield "  pytest 2>&1 | clara-mlx remember -s pytest     keep an output of your own"
    yield "  clara-mlx connect claude                       let your agent work through the gateway"
    yield "  clara-mlx demo --gateway                       see what that changes"


def lines_of_exchange(exchanged: Exchanged) -> Iterator[Any]:
    """What people read of the agent's work: lines and a table."""
    from rich.table import Table

    table = Table()
    for name in ("request", "the agent sends", "the reasoner reads", ""):
        table.add_column(name, justify="left" if not name else "right")
    for number, turn in enumerate(exchanged.turns, 1):
        table.add_row(str(number), f"{turn.sent:,}", f"{turn.read:,}", turn.what)
    yield "\nTokens of each request, without the gateway and through it:"
    yield table
    sent = sum(turn.sent for turn in exchanged.turns)
    read = sum(turn.read for turn in exchanged.turns)
    yield (
        f"Together {sent:,} tokens without the gateway, {read:,} through it: "
        f"{1 - read / sent:.0%} less. A window of {exchanged.window:,} tokens would have ended the "
        f"conversation at request {exchanged.overflow}; through the gateway it went on."
        if exchanged.overflow
        else f"Together {sent:,} tokens without the gateway, {read:,} through it."
    )
    yield (
        f"\nAt the end the reasoner needs what is long gone from its prompt ({exchanged.wanted}), "
        f"and calls the memory's tool {exchanged.tool}:"
    )
    yield f"  {exchanged.fact}"
    yield (
        "\nYour agent: `clara-mlx connect AGENT`, then `clara-mlx serve`; "
        "`clara-mlx connect AGENT --remove` puts everything back."
    )
