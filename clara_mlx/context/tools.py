"""The two tools a reasoner asks its memory with: `expand` a handle, `ask_memory` a question."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from clara_mlx.context.answers import ask
from clara_mlx.context.pages import PAGE_CHARACTERS, PAGE_LINES, expand
from clara_mlx.context.shown import last_sent, page_room
from clara_mlx.errors import ClaraError, for_strangers
from clara_mlx.memory import Memory

#: Tools whose results come from the memory, and are never remembered again.
MEMORY_TOOLS = frozenset(("expand", "ask_memory", "recall", "remember"))

# What a conversation is told of a handle that it may not read, whether or not there is one.
_NOT_SEEN = (
    "no memory {!r} belongs to this conversation. Ask ask_memory without a handle. (The gateway's "
    "option --everything opens the memories of all conversations.)"
)

# How the tools name a text before they show its lines.
_HEADING = re.compile(r"\[(m-[0-9a-f]{10,64})(?:: | lines )")

# Characters of a handle that this repeats.
_HANDLE_CHARACTERS = 100

#: The tools in the form of OpenAI's API; they never change, so that prompts cache.
SCHEMAS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "ask_memory",
            "description": "Ask about anything seen earlier in this work, shown or not. Gives a "
            "short answer with the exact lines behind it and their handles.",
            "parameters": {
                "type": "object",
                "properties": {
                    "question": {"type": "string", "description": "One question."},
                    "handle": {"type": "string", "description": "Only the text behind this."},
                },
                "required": ["question"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "expand",
            "description": "Read the exact text behind a handle such as m-1f2e3d4c5b6a, a page at "
            "a time, or only the lines that contain something.",
            "parameters": {
                "type": "object",
                "properties": {
                    "handle": {"type": "string", "description": "The handle."},
                    "start_line": {"type": "integer", "description": "First line, from 1."},
                    "lines": {"type": "integer", "description": f"At most {PAGE_LINES}."},
                    "find": {"type": "string", "description": "Only lines that contain this."},
                    "start_character": {
                        "type": "integer",
                        "description": "Where to begin in a very long first line, from 1.",
                    },
                },
                "required": ["handle"],
            },
        },
    },
)


def call(
    memory: Memory,
    name: str,
    arguments: str | Mapping[str, Any],
    *,
    where: Mapping[str, Any] | None = None,
    sees: Callable[[str], bool] | None = None,
    shown: str | None = None,
    page: int | None = None,
) -> str:
    """The result of a tool call, as text for the model, which also says what is wrong with a call.

    Args:
        memory: The memory to read.
        name: ``expand`` or ``ask_memory``.
        arguments: The arguments as the model wrote them: JSON, or parsed.
        where: Narrows what `ask_memory` searches.
        sees: Whether a handle may be read. Of one that may not, the answer is the same as of one
            that does not exist; by default all may.
        shown: What the asker has in sight, which `ask_memory` does not tell again; by default what
            was last sent of the conversation, if that is known.
        page: Characters that a page of `expand` may have; by default as many as fit the window of
            that conversation.

    Raises:
        ClaraError: There is no such tool.
    """
    if name not in ("expand", "ask_memory"):
        raise ClaraError(f"{name!r} is not a tool of the memory")
    try:
        given = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        if not isinstance(given, Mapping):
            return f"{name}: its arguments must be an object"
        handle = str(given.get("handle") or "")
        if sees and (handle or name == "expand") and not (sees(handle) and memory.has(handle)):
            return f"{name} failed: {_NOT_SEEN.format(handle[:_HANDLE_CHARACTERS])}"
        if name == "ask_memory":
            if shown is None:
                shown = last_sent(memory, where)
            return ask(memory, str(given.get("question") or ""), where, handle or None, shown)
        find = given.get("find")
        return expand(
            memory,
            handle,
            int(given.get("start_line") or 1),
            int(given.get("lines") or PAGE_LINES),
            str(find) if find else None,
            int(given.get("start_character") or 1),
            page or page_room(memory, where) or PAGE_CHARACTERS,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, ClaraError) as error:
        return f"{name} failed: {for_strangers(str(error), memory.path)}"


def handles_in_result(name: str, result: str) -> list[str]:
    """The handles of the texts that a result shows, as its headings name them.

    Handles inside the texts are not meant: nobody knows who wrote them there.
    """
    lines = result.split("\n")
    # A page has one heading, and then whatever the original's lines are. In an answer all lines of
    # originals begin with their numbers.
    headings = lines[:1] if name == "expand" else lines
    return [found[1] for line in headings if (found := _HEADING.match(line))]
