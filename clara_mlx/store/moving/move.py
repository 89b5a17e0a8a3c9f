"""Moving a memory to another database: everything that was not there, verified at the end.

1. Memories with their originals and chunks, a few MB in a transaction.
2. Latents and shortened texts of the same model, as they are stored.
3. Blocks, edits and the ledger, so that conversations go on.
4. The same once more without writing: nothing may be left; and every original is read back from the
   target and compared by its SHA-256.

What the target has is known again by handle and hash, so a move that was killed goes on when it is
started again. Nothing is overwritten, and the source is only read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from clara_mlx.errors import Progress, StoreError
from clara_mlx.store.moving.compressed import move_latents, move_shortened
from clara_mlx.store.moving.conversations import move_blocks, move_days, move_edits, move_rounds
from clara_mlx.store.moving.memories import move_memories, read_back
from clara_mlx.store.moving.tally import Both, Tally
from clara_mlx.store.originals import Originals


@dataclass(frozen=True)
class Moved:
    """The result of a move.

    Attributes:
        tally: What was moved, by table, and what was not.
        compared: Originals that were read back from the target.
        seconds: How long it took.
    """

    tally: Tally
    compared: int
    seconds: float


def move(source: Originals, target: Originals, progress: Progress | None = None) -> Moved:
    """Copy everything from one database to another.

    Args:
        source: What is read.
        target: What is written to.
        progress: Told how many memories, and then latents, are done.

    Raises:
        StoreError: One of them can't be read or written, or at the end the target lacks something.
            What was moved until then stays, and the next move goes on.
    """
    _check_two(source, target)
    target.check_writable()
    began = time.monotonic()
    tally = Tally()
    _walk(Both(source, target, True, tally), progress)
    target.settle()
    after = Tally()
    checked = Both(source, target, False, after)
    _walk(checked, None)
    lacking = {
        name: counts.moved
        for name, counts in after.tables.items()
        if counts.moved > tally.of(name).left
    }
    if lacking:
        missing = ", ".join(f"{count:,} {name}" for name, count in lacking.items())
        raise StoreError(
            f"{target.path}: lacks {missing} of {source.path}, which somebody has remembered or "
            "forgotten meanwhile; start the same command again"
        )
    compared = read_back(checked, progress)
    return Moved(tally, compared, time.monotonic() - began)


def check(source: Originals, target: Originals, progress: Progress | None = None) -> Moved:
    """Find out what `move` would do: everything is read and looked up, and nothing is written."""
    _check_two(source, target)
    began = time.monotonic()
    tally = Tally()
    _walk(Both(source, target, False, tally), progress)
    return Moved(tally, 0, time.monotonic() - began)


def _walk(both: Both, progress: Progress | None) -> None:
    both.source.settle()
    both.target.settle()
    move_memories(both, progress)
    move_latents(both, progress)
    move_shortened(both)
    move_blocks(both)
    move_edits(both)
    move_rounds(both)
    move_days(both)


def _check_two(source: Originals, target: Originals) -> None:
    if str(source.path) == str(target.path):
        raise StoreError(f"{source.path}: a memory can't be moved to itself; name another target")
