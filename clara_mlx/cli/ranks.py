"""How a command ends if it is one of several that ``mlx.launch`` started, and another has ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from os import _exit
from threading import Thread
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from clara_mlx.model.ranks import Ranks

_EXIT_CODE = 128 + signal.SIGTERM  # as a shell reports it


@contextmanager
def explain_termination(ranks: Ranks, kept: str) -> Iterator[None]:
    """Say why this process ends, should ``mlx.launch`` end it because another rank has failed.

    It does so with SIGTERM. Python's own handlers wait until MLX returns, which can take long in
    the middle of a step, so a thread waits for the signal instead.

    Args:
        ranks: This process's place; alone, nothing is changed.
        kept: What is not lost, as the beginning of a sentence.
    """
    if ranks.size == 1:
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(writer)

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] == signal.SIGTERM:
                typer.echo(
                    f"clara-mlx: rank {ranks.rank} was ended, as mlx.launch does when another rank "
                    f"has failed; {kept}, and the same command goes on from there",
                    err=True,
                )
                _exit(_EXIT_CODE)  # nothing half-written has its final name

    watcher = Thread(target=watch, name="clara-mlx-termination", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)  # ends the watcher
        watcher.join()
        os.close(reader)
