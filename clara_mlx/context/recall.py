"""What the current step needs of what is no longer shown, as a note to the newest message."""

from __future__ import annotations

from clara_mlx.context import answers
from clara_mlx.context.counting import Counter
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import content_text
from clara_mlx.context.table import Edit
from clara_mlx.context.view import NOTE, NOTE_BEGINS, View

# Of a token, at first; fewer lines are taken until the note fits.
_CHARACTERS = 4


def bring_back(view: View, question: str, freezer: Freezer, counter: Counter, most: int) -> Edit:
    """The note of the newest message: chosen when it is first sent, and the same ever after.

    It has the answer from memory tokens (with a model) and the exact lines behind it, of this
    session's memories that are not shown any more. It is empty if there are none, and never longer
    than ``most`` tokens: lines that fit less are left out.

    An answer is only given with lines behind it.
    """
    chain = view.chains[-1]
    compacted = {
        edit.block.handle
        for edit in view.all_edits()
        if edit.block.kind == "piece" and edit.block.handle
    }
    shown = "\n".join(content_text(message) for message in view.rendered())
    memory = freezer.memory
    found = answers.search(memory, question, {"session": view.session})
    handles = [handle for handle in found.handles if handle in compacted]
    asked = " ".join(question.split())[:120]
    text, told = "", {}
    room = _CHARACTERS * most
    while handles and room:
        told = answers.quoted(memory, question, found, handles, room, shown)
        answer = [f"answer: {found.said}"] if found.said else []
        heading = f"{NOTE_BEGINS}n-{chain.hex()[:12]}, for: {asked}]"
        text = "\n".join([heading, *answer, *told.values()]) if told else ""
        text = text.encode("utf-8", "replace").decode()
        if counter.text(text) <= most:
            break
        text, told, room = "", {}, room // 2
    block = freezer.note(chain, text, told)
    return Edit(chain, NOTE, block)
