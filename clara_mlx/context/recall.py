"""The recall note: exact lines that the newest message needs and that are no longer shown."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from clara_mlx.context.counting import Counter
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import content_text, units
from clara_mlx.context.quotes import quote_lines
from clara_mlx.context.search import search
from clara_mlx.context.steps import pieces_to_keep
from clara_mlx.context.table import Edit
from clara_mlx.context.view import NOTE, NOTE_BEGINS, View
from clara_mlx.tool_outputs.quoting import quote_markers, replace_surrogates

# Characters per token to begin with; fewer lines are taken until the note fits.
_CHARACTERS_PER_TOKEN = 4

# Characters of the question that the note's heading shows.
_QUESTION_CHARACTERS = 120


def make_note(
    view: View,
    question: str,
    freezer: Freezer,
    counter: Counter,
    most: int,
    among: Collection[str] | None = None,
) -> Edit:
    """Choose the note of the newest message; it never changes afterwards.

    It stands in the newest message, so each of its lines begins with a number or a handle, and
    nothing that it quotes can pass for that message's own text, see `quoting`.

    It has the exact lines that fit the question, from this session's texts that are not shown any
    more, and the model's answer if there are such lines. It is empty if there are none.

    Args:
        view: The conversation.
        question: What the newest message needs.
        freezer: Keeps the note.
        counter: Counts the note's tokens.
        most: Tokens that the note may have; the lines that fit least are left out.
        among: The handles that are searched; None: all of the session.
    """
    chain = view.chains[-1]
    compacted = {
        edit.block.handle
        for edit in view.all_edits()
        if edit.block.kind == "piece" and edit.block.handle
    } | set(_folded(view, freezer))
    shown = "\n".join(content_text(message) for message in view.render())
    memory = freezer.memory
    where: dict[str, Any] = {"session": view.session}
    if among is not None:
        where["handle"] = list(among)
    found = search(memory, question, where)
    handles = [handle for handle in found.handles if handle in compacted]
    asked = quote_markers(" ".join(question.split())[:_QUESTION_CHARACTERS])
    heading = f"{NOTE_BEGINS}n-{chain.hex()[:12]}, for: {asked}]"
    text = ""
    quotes: dict[str, str] = {}
    room = _CHARACTERS_PER_TOKEN * most
    while handles and room:
        quotes = quote_lines(memory, question, found, handles, room, shown)
        text = "\n".join([heading, *found.answer_lines, *quotes.values()]) if quotes else ""
        text = replace_surrogates(text)
        tokens = counter.text(text)
        if tokens <= most:
            break
        text = ""
        quotes = {}
        room = min(room // 2, room * most // tokens)
    return Edit(chain, NOTE, freezer.freeze_note(chain, text, quotes))


def _folded(view: View, freezer: Freezer) -> Iterator[str]:
    """The handles of the texts that folds stand for."""
    for end, (start, _) in view.folds.items():
        spans = [span for span in units(view.messages, view.head) if start < span[1] <= end + 1]
        for pieces in pieces_to_keep(view.messages, spans):
            yield from freezer.handles(view.session, pieces)
