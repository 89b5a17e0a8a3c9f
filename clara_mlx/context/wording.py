"""The text of a block: handle, tool, command, outcome and exact identifiers, taken by rules."""

from __future__ import annotations

import json
from typing import Any

from clara_mlx.context.messages import Piece
from clara_mlx.context.names import IDENTIFIERS, identifier_lines
from clara_mlx.context.outcomes import key_lines
from clara_mlx.context.quoting import (
    MARKER,
    one_line,
    plain_name,
    quote_markers,
    replace_surrogates,
    role_label,
)

#: Said once in a conversation, after its first block.
HOW_TO = (
    "(Texts marked [clara m-...] are kept whole outside this conversation. "
    "expand gives one back by its handle; ask_memory answers a question about all, or about one.)"
)

#: The same, as it follows a block's text.
EXPLANATION = f"\n{HOW_TO}"

#: Characters. A shorter text is left as it is, because a block would save nothing.
LEAST_CHARACTERS = 240

# Characters that a block gives to the command.
_COMMAND = 120

# Characters of a text that is no output, of which its block shows twice as many.
_LINE = 160


def describe(piece: Piece, handle: str, excerpt: int = 0) -> str:
    """The text of a block; the same for the same input, always.

    What it quotes can't pass for our own words, see `quoting`. Arguments of a call stay valid JSON:
    only their long strings are replaced.

    Args:
        piece: The text that the block stands for.
        handle: The handle of its original.
        excerpt: Characters of the original to quote as well, from its beginning and its end.
    """
    if piece.part.startswith("arguments"):
        return replace_surrogates(_shorten_arguments(piece, handle))
    name = f"{role_label(piece.role)} text"
    if piece.role == "tool":
        name = f"{plain_name(piece.tool or 'tool')} output"
    lines = [f"{MARKER}{handle}: {name}, {_size(piece.text)}, kept whole]"]
    command = short_command(piece.arguments)
    if command:
        lines.append(f"command: {command}")
    room = IDENTIFIERS
    if piece.role == "tool":
        outcome = key_lines(piece.text, command)
        lines += [f"outcome: {line}" for line in outcome]
        # A listing has no outcome; its names may have some of the room.
        room += 0 if outcome else _LINE
    else:
        lines.append(f"begins: {one_line(piece.text.strip(), 2 * _LINE)}")
    # An excerpt has the lines of its text as they are: it stays under its role.
    quoted = [quote_markers(part) for part in _excerpt(piece.text, excerpt)] if excerpt else []
    lines += identifier_lines(piece.text, room, shown="\n".join(lines + quoted))
    return replace_surrogates("\n".join(lines + quoted))


def describe_recalled(piece: Piece, number: str) -> str:
    """The text of a block for what a tool of the memory gave; it has a number, not a handle."""
    tool = plain_name(piece.tool or "tool")
    first = f"{MARKER}{number}: what {tool} gave, {_size(piece.text)}; call it again for more]"
    command = f"command: {short_command(piece.arguments)}"
    return replace_surrogates("\n".join([first, command, *identifier_lines(piece.text)]))


def _size(text: str) -> str:
    lines = text.count("\n") + (not text.endswith("\n"))
    return f"{lines} lines" if lines > 1 else f"{len(text)} characters"


def short_command(arguments: str | None, own: str = "") -> str:
    """The arguments of a call as one short line: the value of a single one, or names and values.

    Args:
        arguments: The arguments, as JSON.
        own: How the marker of their own block begins, if they are one.
    """
    try:
        parsed = json.loads(arguments) if arguments else {}
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        return one_line(arguments or "", _COMMAND, own)
    values = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in parsed.items()
    }
    if len(values) == 1:
        return one_line(next(iter(values.values())), _COMMAND, own)
    each = max(24, _COMMAND // max(1, len(values)))
    written = ", ".join(f"{key}={one_line(value, each, own)}" for key, value in values.items())
    return one_line(written, 2 * _COMMAND, own)


def _shorten_arguments(piece: Piece, handle: str) -> str:
    """The arguments of a call with a block in place of each long string; still JSON."""

    def shorten(value: Any) -> Any:
        if isinstance(value, str) and len(value) >= LEAST_CHARACTERS:
            about = "; ".join(identifier_lines(value, IDENTIFIERS // 4))
            about = f": {about}" if about else ""
            return f"{MARKER}{handle}: {_size(value)} of this call, kept whole{about}]"
        if isinstance(value, dict):
            return {key: shorten(one) for key, one in value.items()}
        if isinstance(value, list):
            return [shorten(one) for one in value]
        return value

    try:
        given = json.loads(piece.text)
        short = shorten(given)
    except (ValueError, RecursionError):
        return piece.text  # not JSON: no shorter form is sure to be read
    return piece.text if short == given else json.dumps(short, ensure_ascii=False)


def _excerpt(text: str, characters: int) -> list[str]:
    """The beginning and the end of a text, in whole lines if they fit, and what is left out."""
    if len(text) <= characters:
        return [text]
    head = text[: characters * 2 // 3]
    head = head[: head.rfind("\n") + 1] or head
    tail = text[len(text) - characters // 3 :]
    tail = tail[tail.find("\n") + 1 :] or tail
    between = len(text) - len(head) - len(tail)
    first = text.count("\n", 0, len(text) - len(tail)) + 1
    return [head.rstrip("\n"), f"[... {between} characters; from line {first} on:]", tail]
