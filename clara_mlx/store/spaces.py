"""Whose latents a file has: asked before anything is opened that brings in numpy."""

from __future__ import annotations

from dataclasses import dataclass

from clara_mlx.store.protocol import Database


@dataclass(frozen=True)
class SecondSpace:
    """The space of a new model, which is filled while another one's still answers."""

    compressor: str  # the name of the new one
    fingerprint: str  # of its model
    left: int  # contents that it has still to compress, or has given up
    contents: int  # of the memory


@dataclass(frozen=True)
class Space:
    """Whose latents a file has."""

    compressor: str  # its name
    fingerprint: str  # of its model
    count: int  # of chunks that have latents


def space_of(file: Database) -> Space | None:
    """Whose latents a file has; None if it has none."""
    rows = file.read(
        "SELECT compressor, fingerprint, "
        "(SELECT count(*) FROM latents WHERE space_id = s.id) FROM spaces s ORDER BY id"
    )
    return Space(*rows[0]) if rows else None
