"""How a piece is kept: what identifies it, and what is remembered in its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

from clara_mlx.context import wording
from clara_mlx.context.arguments import describe_arguments, readable_arguments
from clara_mlx.context.commands import short_command
from clara_mlx.context.messages import Piece
from clara_mlx.context.tools import MEMORY_TOOLS
from clara_mlx.store.fields import LONGEST_NAME

#: Hexadecimal digits of a handle; more if another original has it.
DIGITS = 12


class Folded:
    """What a fold stands for.

    Args:
        sent: The messages as they would be sent, as JSON.
        transcribe: Makes the transcript that is remembered in their place; that takes long, and is
            done only for a fold that is chosen.
    """

    def __init__(self, sent: str, transcribe: Callable[[], str]) -> None:
        #: What identifies the fold.
        self.piece = Piece("assistant", "fold", sent)
        self._transcribe = transcribe

    @cached_property
    def with_transcript(self) -> Piece:
        """The same, as it is remembered."""
        return replace(self.piece, kept=self._transcribe())


def remembered_text(piece: Piece) -> str:
    """What is remembered of a piece: its text, or that in a form to read."""
    if piece.kept is not None:
        return piece.kept
    return readable_arguments(piece) if piece.part.startswith("arguments") else piece.text


def body_of(piece: Piece) -> str | None:
    """The text of a piece, if that is not what is remembered."""
    return None if remembered_text(piece) == piece.text else piece.text


def as_given(session: str, piece: Piece, handle: str) -> dict[str, Any]:
    """What `Memory.remember` is given for a piece."""
    metadata = {"role": piece.role, "command": short_command(piece.arguments)}
    if piece.part == "fold":
        metadata["fold"] = "blocks and turns"  # `ask_memory` leaves it out
    return {
        "text": remembered_text(piece),
        "source": (piece.tool or piece.role)[:LONGEST_NAME],
        "session": session,
        "metadata": metadata,
        "handle": handle,
    }


def wording_of(session: str, piece: Piece, excerpt: int) -> Callable[[str], str]:
    """The function that makes the text of a piece's block from its handle.

    ``excerpt`` is the number of characters of the text to show in the block; 0: none.
    """
    if is_recalled(piece):
        number = f"r-{digest_of(session, piece).hex()[:DIGITS]}"
        return lambda handle: wording.describe_recalled(piece, number)
    if piece.part.startswith("arguments"):
        return lambda handle: describe_arguments(piece, handle, excerpt)
    return lambda handle: wording.describe(piece, handle, excerpt)


def is_recalled(piece: Piece) -> bool:
    """Whether a piece is what one of the memory's own tools gave.

    Agents that reach them by MCP put the server's name before the tool's: ``mcp__clara__expand``,
    ``clara_expand``.
    """
    return piece.role == "tool" and is_memory_tool(piece.tool)


def is_memory_tool(name: str | None) -> bool:
    """Whether a tool is one of the memory's own, by whatever way it is reached."""
    tool = (name or "").rpartition("__")[2]
    return tool.removeprefix("clara_") in MEMORY_TOOLS


def digest_of(session: str, piece: Piece, excerpt: int = 0) -> bytes:
    """What identifies a piece's block: within a session, equal texts of equal calls share one."""
    kind = piece.part.partition(".")[0]
    identity = (session, piece.role, kind, piece.tool, piece.arguments, piece.text, excerpt)
    return sha256(*(str(part).encode("utf-8", "surrogatepass") for part in identity))


def sha256(*parts: bytes) -> bytes:
    """A digest of several parts, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
