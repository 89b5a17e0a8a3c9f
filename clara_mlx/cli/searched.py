"""What a search says of itself, on standard error: by words only, or how much has latents yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from clara_mlx.memory.settings import MODEL

if TYPE_CHECKING:
    from clara_mlx.memory import Memory


def say_how_it_was_searched(memory: Memory, *, with_model: bool) -> None:
    """Say on standard error if a search was by words only, or could not compare everything.

    Args:
        memory: What was searched.
        with_model: Whether a model was given that compares by meaning.
    """
    status = memory.status()
    if not with_model:
        typer.echo(
            f"(searched by words only: no model was given; --model or {MODEL.name} names one)",
            err=True,
        )
    elif not getattr(memory.compressor, "searches", False):
        name = getattr(memory.compressor, "name", "this compressor")
        typer.echo(f"(searched by words only: {name} does not compare by meaning)", err=True)
    elif status.compressed < status.chunks:
        typer.echo(
            f"(by meaning, {status.compressed:,} of {status.chunks:,} chunks were searched, which "
            "are compressed so far; `clara-mlx flush` compresses the rest)",
            err=True,
        )
