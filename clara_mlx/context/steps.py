"""Steps: what an agent said and called, and what that gave; their short texts are kept together.

A text of a few words says little by itself, and there are many: the command, "1 failed: test_x",
the agent's sentence before. Together they say what happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from clara_mlx.context.arguments import readable_arguments
from clara_mlx.context.kept import is_memory_tool
from clara_mlx.context.messages import Piece, calls_by_result, calls_in, is_instruction, pieces
from clara_mlx.context.wording import LEAST_CHARACTERS
from clara_mlx.tool_outputs.quoting import indent, role_label

# A step that says less, in characters, is not worth a memory.
_LEAST = 20


def is_long(piece: Piece) -> bool:
    """Whether a text is kept by itself."""
    return len(piece.text) >= LEAST_CHARACTERS


def short_texts(pieces: Iterable[Piece]) -> Piece | None:
    """The short texts of a step as one text; None if they say too little."""
    short = [piece for piece in pieces if not is_long(piece) and not is_memory_tool(piece.tool)]
    if sum(len(piece.text.strip()) for piece in short) < _LEAST:
        return None
    if len(short) == 1 and not short[0].part.startswith("arguments"):
        return short[0]
    return Piece(short[0].role, "step", "\n".join(map(_line, short)))


def is_over(messages: Sequence[Mapping[str, Any]], span: tuple[int, int]) -> bool:
    """Whether every call of a unit has its result, or something came after it."""
    start, end = span
    return end < len(messages) or end - start > len(calls_in(messages[start]))


def pieces_to_keep(
    messages: Sequence[Mapping[str, Any]], unit_spans: Iterable[tuple[int, int]]
) -> list[list[Piece]]:
    """For each message of some units, in order, the texts that are remembered when it has come.

    Long ones are remembered by themselves, the short ones of a unit together, when it is over.
    Those of instructions never are.
    """
    spans = list(unit_spans)
    calls = calls_by_result(messages[: spans[-1][1]], spans[0][0]) if spans else {}
    kept: list[list[Piece]] = []
    for span in spans:
        found = [
            [] if is_instruction(messages[i]) else pieces(messages[i], calls.get(i))
            for i in range(*span)
        ]
        kept += [[one for one in some if is_long(one)] for some in found]
        if is_over(messages, span) and (short := short_texts(chain.from_iterable(found))):
            kept[-1].append(short)
    return kept


def _line(piece: Piece) -> str:
    if piece.part.startswith("arguments"):
        return readable_arguments(piece)
    label = "gave" if piece.role == "tool" else role_label(piece.role)
    return f"{label}: {indent(piece.text)}"
