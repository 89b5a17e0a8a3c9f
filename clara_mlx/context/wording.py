"""The text of a block: handle, tool, command, outcome and exact identifiers, taken by rules."""

from __future__ import annotations

from clara_mlx.context.commands import short_command
from clara_mlx.context.messages import Piece
from clara_mlx.tool_outputs.identifier_lines import IDENTIFIERS, identifier_lines
from clara_mlx.tool_outputs.outcomes import key_lines
from clara_mlx.tool_outputs.quoting import (
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

# Characters of a text that is no output, of which its block shows twice as many.
_LINE = 160


def describe(piece: Piece, handle: str, excerpt: int = 0) -> str:
    """The text of a block; the same for the same input, always.

    What it quotes can't pass for our own words, see `quoting`. The arguments of a call have blocks
    of their own, see `arguments.describe_arguments`.

    Args:
        piece: The text that the block stands for; the content of a message.
        handle: The handle of its original.
        excerpt: Characters of the original to quote as well, from its beginning and its end.
    """
    name = f"{role_label(piece.role)} text"
    if piece.role == "tool":
        name = f"{plain_name(piece.tool or 'tool')} output"
    lines = [f"{MARKER}{handle}: {name}, {size_of(piece.text)}, kept whole]"]
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
    quoted = [quote_markers(part) for part in excerpt_of(piece.text, excerpt)] if excerpt else []
    lines += identifier_lines(piece.text, room, shown="\n".join(lines + quoted))
    return replace_surrogates("\n".join(lines + quoted))


def describe_recalled(piece: Piece, number: str) -> str:
    """The text of a block for what a tool of the memory gave; it has a number, not a handle."""
    tool = plain_name(piece.tool or "tool")
    first = f"{MARKER}{number}: what {tool} gave, {size_of(piece.text)}; call it again for more]"
    command = f"command: {short_command(piece.arguments)}"
    return replace_surrogates("\n".join([first, command, *identifier_lines(piece.text)]))


def size_of(text: str) -> str:
    """How much text there is, in a few words."""
    lines = text.count("\n") + (not text.endswith("\n"))
    return f"{lines} lines" if lines > 1 else f"{len(text)} characters"


def excerpt_of(text: str, characters: int) -> list[str]:
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
