"""The full history behind what was sent, from the messages and the memory alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clara_mlx.context.fold_form import called_fold
from clara_mlx.context.folds import FOLDED
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import Message, content_text, pieces, replace_texts
from clara_mlx.context.table import Block
from clara_mlx.context.view import NOTE_BEGINS, NOTE_GAP
from clara_mlx.tool_outputs.quoting import MARKER


def rebuild_history(messages: Sequence[Message], freezer: Freezer) -> list[Message]:
    """The full history behind messages that were sent: every block replaced with its original.

    Text that this memory did not issue is kept. A fold stands for others' messages, too: it is all
    that a user or the assistant says, or the result of the very call that a fold is sent with.

    Raises:
        StoreError: An original was forgotten, or is damaged.
    """
    full: list[Message] = []
    index = 0
    while index < len(messages):
        block, count = fold_at(messages, index, freezer)
        if block:
            full += rebuild_history(json.loads(freezer.original(block)), freezer)
        else:
            full.append(_restore_message(messages[index], freezer))
        index += count
    return full


def fold_at(messages: Sequence[Message], index: int, freezer: Freezer) -> tuple[Block | None, int]:
    """The fold that this memory issued and that begins at an index, if one does.

    Returns it and the number of its messages; without one, None and 1.
    """
    message = messages[index]
    if message.get("role") not in ("assistant", "user"):
        return None, 1
    content = message.get("content")
    block = _block_with_text(content, freezer) if isinstance(content, str) else None
    if block and block.kind == "fold":
        return block, 1
    if message.get("tool_calls") and index + 1 < len(messages):
        block = _block_with_text(content_text(messages[index + 1]), freezer)
        if block and called_fold(messages[index : index + 2], block):
            return block, 2
    return None, 1


def has_fold(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a message looks like a fold."""
    texts = map(content_text, messages)
    return any(t.startswith(MARKER) and FOLDED in t.partition("\n")[0] for t in texts)


def _without_note(message: Message, freezer: Freezer) -> Message:
    """A message without the note that was added to it."""
    content = message.get("content")
    last = content[-1].get("text") if isinstance(content, list) and content else content
    text = last if isinstance(last, str) else ""
    before, _, note = text.rpartition(NOTE_GAP + NOTE_BEGINS)
    block = freezer.table.block_with_text(NOTE_BEGINS + note) if note else None
    if block is None or block.kind != "note":
        return message
    return {**message, "content": content[:-1] if isinstance(content, list) else before}


def _restore_message(message: Message, freezer: Freezer) -> Message:
    """A message with its originals in place of blocks, and without its note."""
    message = _without_note(message, freezer)
    texts = {}
    for piece in pieces(message):
        block = _block_with_text(piece.text, freezer)
        if block and block.kind == "piece":
            texts[piece.part] = freezer.original(block)
    return replace_texts(message, texts) if texts else message


def _block_with_text(text: str, freezer: Freezer) -> Block | None:
    return freezer.block_with_text(text) if MARKER in text else None
