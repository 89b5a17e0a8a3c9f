"""The two tools a reasoner asks its memory with: `expand` a handle, `ask_memory` a question."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from clara_mlx.context.answers import ask
from clara_mlx.context.ranking import lines_sharing_words
from clara_mlx.context.shown import last_sent
from clara_mlx.errors import ClaraError, for_strangers
from clara_mlx.memory import Memory

#: Tools whose results come from the memory, and are never remembered again.
MEMORY_TOOLS = frozenset(("expand", "ask_memory", "recall", "remember"))

#: The most lines that one page of an original has.
PAGE_LINES = 200

#: The most characters that it has.
PAGE_CHARACTERS = 12_000

# Lines shown before and after a match.
_LINES_AROUND = 2

# The number of lines shown if nothing matches.
_NEAREST = 20

# Characters of a line above which only the part around a match is shown, so that several matches
# fit on a page.
_LONG_LINE = PAGE_CHARACTERS // 8

# Characters of that part.
_PART_OF_LONG_LINE = PAGE_CHARACTERS // 16

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
) -> str:
    """The result of a tool call, as text for the model, which also says what is wrong with a call.

    Args:
        memory: The memory to read.
        name: ``expand`` or ``ask_memory``.
        arguments: The arguments as the model wrote them: JSON, or parsed.
        where: Narrows what `ask_memory` searches.
        sees: Whether a handle may be read. Of one that may not, the answer is the same as of one
            that does not exist; by default all may.

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


def expand(
    memory: Memory,
    handle: str,
    start_line: int = 1,
    lines: int = PAGE_LINES,
    find: str | None = None,
) -> str:
    """A page of an original: exact lines, and how to get the next page.

    Nothing in the lines is changed, not even what looks like a block of ours: an agent edits files
    by them. The page is a tool's result, and its first line says whose text follows.

    Args:
        memory: The memory that keeps the original.
        handle: Its handle.
        start_line: The first line of the page, from 1.
        lines: The number of lines; at most `PAGE_LINES`.
        find: Show only lines that contain this, and those around them.

    Raises:
        ClaraError: No memory has that handle.
    """
    all_lines = memory.text(handle).split("\n")
    if find is not None:
        return _find_lines(handle, all_lines, find)
    first = min(max(1, start_line), len(all_lines))
    page: list[str] = []
    room = PAGE_CHARACTERS
    for line in all_lines[first - 1 : first - 1 + min(max(1, lines), PAGE_LINES)]:
        if len(line) > room and page:
            break
        page.append(line)
        room -= len(line) + 1
    last = first + len(page) - 1
    if len(page) == 1 and len(page[0]) > PAGE_CHARACTERS:
        cut = f" (cut: it has {len(page[0])} characters; look inside it with find)"
        page = [page[0][:PAGE_CHARACTERS]]
    else:
        cut = ""
    more = f"; next: start_line={last + 1}" if last < len(all_lines) else ""
    return "\n".join([f"[{handle} lines {first}-{last} of {len(all_lines)}{cut}{more}]", *page])


def _find_lines(handle: str, lines: list[str], find: str) -> str:
    """The lines that contain a text, with those around them; if none does, the nearest ones."""
    matches = [i for i, line in enumerate(lines) if find in line]
    if matches:
        head = f"{len(matches)} of {len(lines)} lines contain {find!r}"
    else:
        # A model often quotes inexactly.
        matches = lines_sharing_words(lines, find)[:_NEAREST]
        head = f"none of {len(lines)} lines contains {find!r}"
        if matches:
            head += f"; these {len(matches)} share most of its words"
    shown: dict[int, str] = {}
    room = PAGE_CHARACTERS
    done = 0
    for match in matches:
        near = range(max(0, match - _LINES_AROUND), min(len(lines), match + _LINES_AROUND + 1))
        new = {i: _part_around(lines[i], find) for i in near if i not in shown}
        taken = sum(len(f"{i + 1}: {line}\n") for i, line in new.items())
        if taken > room:
            break
        room -= taken
        shown.update(new)
        done += 1
    if done < len(matches):
        head += f"; the first {done} are shown"
    return "\n".join([f"[{handle}: {head}]", *(f"{i + 1}: {shown[i]}" for i in sorted(shown))])


def _part_around(line: str, find: str) -> str:
    """A line, or the part of a very long one around the text that was looked for."""
    if len(line) <= _LONG_LINE:
        return line
    start = max(0, line.find(find) - _PART_OF_LONG_LINE // 2)
    return f"...{line[start : start + _PART_OF_LONG_LINE]}..."
