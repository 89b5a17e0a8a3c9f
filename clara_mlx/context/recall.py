"""What the current step needs of what is no longer shown, as a note to the newest message."""

from __future__ import annotations

from clara_mlx.context import tools
from clara_mlx.context.blocks import Freezer
from clara_mlx.context.counting import Counter
from clara_mlx.context.messages import content_text
from clara_mlx.context.view import NOTE, NOTE_BEGINS, View
from clara_mlx.store.blocks import Edit

# Hits looked at for one note.
_HITS = 8


def bring_back(view: View, question: str, freezer: Freezer, counter: Counter, most: int) -> Edit:
    """The note of the newest message: chosen when it is first sent, and the same ever after.

    It has the answer from memory tokens (with a model) and the exact lines behind it, of this
    session's memories that are not shown any more. It is empty if there are none, and never longer
    than ``most`` tokens: whole passages are left out, the last first.

    An answer is only given with lines behind it.
    """
    chain = view.chains[-1]
    compacted = {
        edit.block.handle
        for edit in view.all_edits()
        if edit.block.kind == "piece" and edit.block.handle
    }
    shown = "\n".join(content_text(message) for message in view.rendered())
    said, hits = tools.answered(freezer.memory, question, {"session": view.session}, _HITS)
    hits = [hit for hit in hits if hit.handle in compacted and hit.text.strip() not in shown]
    text = ""
    while hits:
        asked = " ".join(question.split())[:120]
        quotes = tools.quoted(hits, 4 * most)
        answer = [f"answer: {said}"] if said else []
        text = "\n".join([f"{NOTE_BEGINS}n-{chain.hex()[:12]}, for: {asked}]", *answer, *quotes])
        text = text.encode("utf-8", "replace").decode()
        if quotes and counter.text(text) <= most:
            break
        hits, text = hits[:-1], ""
    block = freezer.note(chain, text, [hit.handle for hit in hits])
    return Edit(chain, NOTE, block)
