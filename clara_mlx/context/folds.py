"""The text of a fold: one message that stands for many, with a line for each text and call.

Every line says whose words it has, and only lines that this program wrote are taken over from an
earlier fold. So nothing that a tool, a file or a model said becomes a line of somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from clara_mlx.context.messages import calls_in, content_text, content_texts
from clara_mlx.context.quoting import (
    MARKER,
    even_line_ends,
    indent,
    one_line,
    plain_name,
    quote_markers,
    replace_surrogates,
    role_label,
)
from clara_mlx.context.table import Block
from clara_mlx.context.wording import EXPLANATION, short_command

#: How a block that stands for many messages names them.
FOLDED = "earlier messages"

# How the line of a block with a handle begins.
_BLOCK = f"{MARKER}m-"

# Characters of a text in its short form.
_SHORT = 160

# Characters of it in its fuller form.
_FULLER = 640

#: Finds the block that a text of a role is, if it is one; see `Freezer.block_shown`.
FindBlock = Callable[[str, str], Block | None]

#: A line of a fold, and a fuller form of it, whose further lines are indented.
Entry = tuple[str, str]


def fold_entries(
    messages: Sequence[Mapping[str, Any]], find_block: FindBlock, earlier: Collection[int] = ()
) -> list[Entry]:
    """For each text and call of messages, one line and a fuller form of it.

    The fuller form of a block is the block itself, and an earlier fold has its own lines again;
    other texts are cut.

    Args:
        messages: The messages as they were sent.
        find_block: Only texts for which it finds a block are taken for one, whatever they look
            like. All others get one line under their own role.
        earlier: The indices of the messages that are earlier folds.
    """
    entries: list[Entry] = []
    for index, message in enumerate(messages):
        if index in earlier:
            entries += kept_entries(content_text(message))
            continue
        role = str(message.get("role"))
        entries += _text_entries(role, content_texts(message), find_block)
        for tool, arguments in calls_in(message):
            block = find_block(role, arguments)
            own = f"{MARKER}{block.handle}:" if block else ""
            line = f"called {plain_name(tool)}: {short_command(arguments, own)}"
            entries.append((line, line))
    return entries


def _text_entries(role: str, texts: Iterable[str], find_block: FindBlock) -> Iterator[Entry]:
    """The entries of a message's texts; texts in a row that are no blocks share one."""
    foreign = ""
    for text in texts:
        # A text with a block inside it, or before more text, is not a block.
        block = find_block(role, text) if text.startswith(MARKER) else None
        if block is None or block.kind != "piece":
            foreign += text
            continue
        yield from _foreign_entry(role, foreign)
        foreign = ""
        yield _block_entry(MARKER + quote_markers(_without_explanation(text)[len(MARKER) :]))
    yield from _foreign_entry(role, foreign)


def _foreign_entry(role: str, text: str) -> Iterator[Entry]:
    text = text.strip()
    if text:
        label = role_label(role)
        yield f"{label}: {one_line(text, _SHORT)}", f"{label}: {one_line(text, _FULLER)}"


def kept_entries(fold: str) -> list[Entry]:
    """The entries of a fold that this program made, from its text."""
    # A fuller form has further lines, indented; they stay with their first.
    lines = re.split(r"\n(?!  )", _without_explanation(fold))[1:]
    return [_block_entry(line.replace("\n  ", "\n")) for line in lines]


def _block_entry(text: str) -> Entry:
    text = even_line_ends(text)
    return _first_lines(text), indent(text)


def _without_explanation(text: str) -> str:
    return text.strip().removesuffix(EXPLANATION)


def describe_fold(entries: list[Entry], handle: str, messages: int, most: int) -> str:
    """The text that stands for many messages.

    Users' words and all handles with their commands come first, then the newest of the others in
    a quarter of the room that is left. The rest of the room is for fuller forms, newest first.

    Args:
        entries: What `fold_entries` gave.
        handle: The handle of the transcript.
        messages: The number of messages.
        most: Characters that the text may have, about.
    """
    order = sorted(range(len(entries)), key=lambda i: (_rank(entries[i][0]), -i))
    chosen: dict[int, str] = {}
    room = most

    def choose(indices: Iterable[int], spare: int, form: Callable[[Entry], str]) -> None:
        """Choose a form of these entries, as long as ``spare`` characters stay free."""
        nonlocal room
        for index in indices:
            text = form(entries[index])
            needed = len(text) - len(chosen[index]) if index in chosen else len(text) + 1
            if room - needed >= spare:
                room -= needed
                chosen[index] = text

    first = [i for i in order if _rank(entries[i][0]) < _OTHERS]
    choose(first, 0, lambda entry: _shortest(entry[0]))
    choose(order[len(first) :], room * 3 // 4, lambda entry: entry[0])
    choose(first, room // 4, lambda entry: entry[1])
    choose([i for i in first if chosen.get(i) != entries[i][1]], 0, lambda entry: entry[0])
    left = f"; {len(entries) - len(chosen)} lines only there" if len(chosen) < len(entries) else ""
    heading = f"{MARKER}{handle}: {messages} {FOLDED}, kept whole{left}]"
    return replace_surrogates("\n".join([heading, *(chosen[i] for i in sorted(chosen))]))


# The rank of lines that are not a user's words and have no handle.
_OTHERS = 2


def _rank(line: str) -> int:
    """Which lines of a fold come first; the lowest do."""
    return 0 if line.startswith("user: ") else 1 if line.startswith(_BLOCK) else _OTHERS


def _first_lines(text: str) -> str:
    """A block's handle, tool, size, command and first outcome, as one line."""
    lines = text.split("\n", 3)
    rest = [line.partition(": ")[2] for line in lines[1:3] if line[:8] in ("command:", "outcome:")]
    return " | ".join([lines[0], *rest])


def _shortest(line: str) -> str:
    """A block's line cut down to handle and command; other lines as they are."""
    head, _, rest = line.partition("] | ")
    if not line.startswith(_BLOCK) or not rest:
        return line
    return f"{head.partition(':')[0]}] | {rest.partition(' | ')[0]}"
