"""A question to the memory, answered as text: what the model says, and exact lines behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clara_mlx.compressors.question import is_thought
from clara_mlx.context.quotes import quote_lines
from clara_mlx.context.search import search
from clara_mlx.memory import Memory, asking

#: Characters that the lines of one answer may have together.
ANSWER_CHARACTERS = 3_000

#: The same if an agent says what it thinks, and has use for more than one line: two thirds of a
#: page of `expand`.
ANSWER_CHARACTERS_FOR_THOUGHTS = 8_000

# What is told in place of lines that the asker has in sight.
_IN_SIGHT = "Nothing else is remembered: the lines that fit are in the conversation already."


def ask(
    memory: Memory,
    question: str,
    where: Mapping[str, Any] | None = None,
    handle: str | None = None,
    shown: str = "",
) -> str:
    """The model's answer, if there is a model, and the exact lines that fit the question best.

    Args:
        memory: The memory to ask.
        question: One question.
        where: Narrows what is searched.
        handle: Look only at the text behind this handle.
        shown: What the asker has in sight; lines that are in it are left out.

    Raises:
        ClaraError: No memory has that handle.
    """
    if not question.strip():
        return "ask_memory: say what to look for in `question`"
    if handle is not None:
        memory.original(handle)  # raises if there is none
    found = search(memory, question, where, handle)
    handles = found.handles if handle is None else [handle]
    room = ANSWER_CHARACTERS_FOR_THOUGHTS if is_thought(question) else ANSWER_CHARACTERS
    quotes = quote_lines(memory, question, found, handles, room, shown)
    if quotes:
        return "\n".join([*found.answer_lines, *quotes.values()])
    if shown and handles:
        return "\n".join([*found.answer_lines, _IN_SIGHT])
    return asking.NOTHING_FOUND if handle is None else f"[{handle}: no line was found; see expand]"
