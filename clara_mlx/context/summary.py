"""A conversation as one text, for clients that compact it themselves and ask for that text.

The text is a fold. Its client puts it in the place of what it stands for, and sends it back in its
next requests; there it counts as a fold if this memory made it for the same conversation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from clara_mlx.context.compaction import Compaction
from clara_mlx.context.counting import Counter, rough_tokens
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.kept import is_recalled
from clara_mlx.context.messages import Message, units
from clara_mlx.context.rebuild import fold_at
from clara_mlx.context.steps import is_long
from clara_mlx.context.table import Block
from clara_mlx.context.view import View
from clara_mlx.context.wording import EXPLANATION, excerpt_of
from clara_mlx.tool_outputs.quoting import (
    MARKER,
    indent,
    plain_name,
    quote_markers,
    replace_surrogates,
)

# Results that no model has read yet may take this share of the text.
_UNREAD_SHARE = 0.5


@dataclass(frozen=True)
class Summary:
    """A text that stands for a conversation.

    Attributes:
        text: A fold, and how originals come back.
        handle: The handle of the transcript.
        original_tokens: Tokens of the conversation, about.
        tokens: Tokens of the text.
    """

    text: str
    handle: str
    original_tokens: int
    tokens: int


def summarize(view: View, freezer: Freezer, counter: Counter, characters: int) -> Summary:
    """One text for a conversation; what comes before its first answer stays with the client.

    The conversation itself is not edited.

    Args:
        view: The conversation, without instructions.
        freezer: Makes the fold.
        counter: Counts tokens.
        characters: Characters that the text may have, about.

    Raises:
        StoreError: The memory can't keep what the text stands for.
    """
    end = len(view.messages)
    start = view.head if view.head < end else 0
    unread = _quote_unread(view, freezer, int(characters * _UNREAD_SHARE))
    compaction = Compaction(view, freezer, counter)
    fold = compaction.fold_block(start, end, characters - len(unread), unread)
    made = [*(edit.block for edit in compaction.edits), fold]
    mentions = compaction.new.mentions
    freezer.remember_fold(view.session, fold, compaction.new.folds[fold.digest])
    freezer.table.save_edits([], [(block, mentions.get(block.digest, [])) for block in made])
    text = fold.text + EXPLANATION
    tokens = rough_tokens(view.messages, None, counter.text)
    return Summary(text, str(fold.handle), tokens, counter.text(text))


def _quote_unread(view: View, freezer: Freezer, characters: int) -> str:
    """The newest results as lines of a fold, each whole or its beginning and its end.

    A client compacts in the middle of a turn, too: then no model has read them yet.
    """
    first, end = units(view.messages)[-1]
    results = [i for i in range(first, end) if view.messages[i].get("role") == "tool"]
    found = [one for i in results for one in view.pieces(i) if not is_recalled(one) and one.text]
    lines = []
    for piece in found:
        label = f"result of {plain_name(piece.tool or 'tool')}"
        label += f" {freezer.handle_of(view.session, piece)}" if is_long(piece) else ""
        quoted = map(quote_markers, excerpt_of(piece.text, characters // len(found)))
        lines.append(indent("\n".join([f"{label}, as it came:", *quoted])))
    return replace_surrogates("".join(f"\n{line}" for line in lines))


def handles_of_folds(
    messages: Sequence[Message], sessions: Collection[str], freezer: Freezer
) -> set[str]:
    """The handles that those folds name which a client keeps and one of these sessions made."""
    found: list[Block] = []
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, str) and content.startswith(MARKER):
            first = max(0, index - (message.get("role") == "tool"))
            block, _ = fold_at(messages, first, freezer)
            if block and any(freezer.is_own(session, block) for session in sessions):
                found.append(block)
    named = freezer.table.mentions([block.digest for block in found])
    return named | {block.handle for block in found if block.handle}
