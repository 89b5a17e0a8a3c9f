"""What a search could not compare, said beside what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clara_mlx.cli.notes import note
from clara_mlx.memory.settings import MODEL

if TYPE_CHECKING:
    from clara_mlx.memory import Memory


def say_how_it_was_searched(memory: Memory) -> None:
    """Say on standard error if a search was by words only, or could not compare everything."""
    compressor = memory.compressor
    status = memory.status()
    if compressor is None:
        said = f"searched by words only: no model was given; --model or {MODEL.name} names one"
    elif not getattr(compressor, "searches", False):  # which only those that make latents have
        said = f"searched by words only: {compressor.name} does not compare by meaning"
    elif status.compressed < status.chunks:
        said = (
            f"by meaning, {status.compressed:,} of {status.chunks:,} chunks were searched, which "
            "are compressed so far; `clara-mlx flush` compresses the rest"
        )
    else:
        return
    note(f"({said})")
