"""A conversation as it is sent: its messages with the edits that were made to them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

from clara_mlx.context import wording
from clara_mlx.context.fold_form import fold_form, fold_messages
from clara_mlx.context.messages import (
    Message,
    Piece,
    calls_by_result,
    chains,
    content_text,
    head_length,
    is_instruction,
    pieces,
    replace_texts,
    with_note,
)
from clara_mlx.context.table import Edit
from clara_mlx.tool_outputs.quoting import MARKER

#: The part of an edit that adds a note after a message's content, and replaces nothing.
NOTE = "note"

#: How every note begins.
NOTE_BEGINS = f"{MARKER}recalls "

#: Between a message and its note.
NOTE_GAP = "\n\n"


def session_of(messages: Sequence[Mapping[str, Any]], caller: bytes = b"") -> str:
    """A name for the conversation, from its first message that is not an instruction.

    Equal names are no proof of one conversation: people open with the same words.

    Args:
        messages: The conversation.
        caller: A digest of what is known of who sends it, so that two callers' names differ.
    """
    for message in messages:
        if not is_instruction(message):
            identity = f"{message.get('role')}\n{content_text(message)}"
            digest = sha256(identity.encode("utf-8", "surrogatepass"))
            if caller:
                digest = sha256(digest.digest() + caller)
            return f"c-{digest.hexdigest()[:16]}"
    return "c-empty"


class View:
    """Messages and the edits made to them; `render` gives what the reasoner gets.

    Attributes:
        messages: The messages as the client sent them; never changed.
        session: The conversation's name.
        chains: The chain that ends with each message; see `messages.chains`.
        head: The number of messages before the first answer; they are never edited.
        edits: The edits, by the index of the message and by part.
        folds: By the last index of what is folded: the first index, and the edit.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        session: str,
        edits: Iterable[Edit] = (),
        ends: Sequence[bytes] | None = None,
    ) -> None:
        self.messages = list(messages)
        self.session = session
        self.chains = chains(messages, session) if ends is None else ends
        self.head = head_length(messages)
        self.edits: dict[int, Mapping[str, Edit]] = {}
        self.folds: dict[int, tuple[int, Edit]] = {}
        self._pieces: dict[int, list[Piece]] = {}  # by index, as far as they were asked for
        self.add(edits)

    def continued(self, messages: Sequence[Message], ends: Sequence[bytes], same: int) -> View:
        """A view of other messages with the edits of the first ``same``, which are this one's, too.

        Args:
            messages: The messages.
            ends: The chain that ends with each.
            same: The number of first messages that both have.
        """
        other = View(messages, self.session, ends=ends)
        other.edits = {index: edits for index, edits in self.edits.items() if index < same}
        other.folds = {end: fold for end, fold in self.folds.items() if end < same}
        return other

    def add(self, edits: Iterable[Edit]) -> None:
        """Apply edits; those of other conversations or of the head are left out."""
        for edit in edits:
            index = self._ends.get(edit.chain, -1)
            if index < self.head and not (index >= 0 and edit.part == NOTE):
                continue
            self.edits[index] = {**self.edits.get(index, {}), edit.part: edit}
            if edit.block.kind == "fold":
                start = index + 1 - fold_form(edit.part)[1]
                # If instructions have come in between since, the fold would hide them. Of several
                # with one end, the widest was made last.
                widest = self.folds.get(index, (start, edit))[0]
                if self.stretch_start(index) <= start <= widest:
                    self.folds[index] = (start, edit)

    def copy(self) -> View:
        """A view of the same messages that can be edited by itself."""
        other = copy.copy(self)
        other.edits = dict(self.edits)
        other.folds = dict(self.folds)
        return other

    def stretch_start(self, index: int) -> int:
        """The first index of the stretch of messages without instructions that ``index`` is in.

        Folds stay within such stretches, so that no instruction is ever folded.
        """
        return self._stretch_starts[index]

    @cached_property
    def _stretch_starts(self) -> list[int]:
        """By the index of a message, and by their number, where its stretch starts."""
        starts: list[int] = []
        for index in range(len(self.messages) + 1):
            begins = index <= self.head or is_instruction(self.messages[index - 1])
            starts.append(index if begins else starts[-1])
        return starts

    @cached_property
    def _ends(self) -> dict[bytes, int]:
        """By chain, the index of the message that ends it."""
        # A system message ends the same chain as the message before it, and is never edited.
        return {
            chain: index
            for index, chain in enumerate(self.chains)
            if not is_instruction(self.messages[index])
        }

    @cached_property
    def _calls(self) -> dict[int, tuple[str, str]]:
        return calls_by_result(self.messages)

    def fold_at(self, index: int) -> int | None:
        """The last index of the widest fold that a message is in, or None."""
        ends = [end for end, (start, _) in self.folds.items() if start <= index <= end]
        return max(ends) if ends else None

    def all_edits(self) -> list[Edit]:
        """Every edit that is applied, in the order of the messages."""
        every = (self.edits[index] for index in sorted(self.edits))
        return [edits[part] for edits in every for part in sorted(edits)]

    def edits_since(self, earlier: View) -> list[Edit]:
        """The edits that an earlier view of the same messages did not have, in their order."""
        return [
            edits[part]
            for index in sorted(self.edits)
            if (edits := self.edits[index]) is not (before := earlier.edits.get(index, {}))
            for part in sorted(edits)
            if edits[part] != before.get(part)
        ]

    def pieces(self, index: int) -> list[Piece]:
        """The texts of a message as the client sent it."""
        if index not in self._pieces:
            self._pieces[index] = pieces(self.messages[index], self._calls.get(index))
        return self._pieces[index]

    def sent_indices(self) -> list[int]:
        """The indices of the messages that are sent, in order; of each fold, the last index."""
        sent: list[int] = []
        following = 0
        for start, end in sorted((start, end) for end, (start, _) in self.folds.items()):
            sent += range(following, start)
            following = max(following, end)
        sent += range(following, len(self.messages))
        return sent

    def outside_folds(self) -> set[int]:
        """The indices of the messages that are in no fold."""
        return set(self.sent_indices()).difference(self.folds)

    def render(
        self, start: int = 0, end: int | None = None, *, notes: bool = True
    ) -> list[Message]:
        """The messages that the reasoner gets, or those between two indices."""
        end = len(self.messages) if end is None else end
        return [
            message
            for index in self.sent_indices()
            if start <= index < end
            for message in self.render_at(index, notes=notes)
        ]

    def render_at(self, index: int, *, notes: bool = True) -> list[Message]:
        """What the reasoner gets for a message that is sent."""
        if index in self.folds:  # and in no wider one, or it would not be sent
            edit = self.folds[index][1]
            form, _ = fold_form(edit.part)
            return fold_messages(form, str(edit.block.handle), _text_of(edit))
        if index not in self.edits:
            return [self.messages[index]]
        message = self.messages[index]
        edits = self.edits.get(index, {})
        texts = {part: _text_of(edit) for part, edit in edits.items() if edit.block.kind == "piece"}
        if texts:
            message = replace_texts(message, texts)
        note = edits.get(NOTE)
        if notes and note and note.block.text:
            message = with_note(message, NOTE_GAP + note.block.text)
        return [message]

    @property
    def explains(self) -> bool:
        """Whether something that is sent explains how to get originals back."""
        for index in self.sent_indices():
            folded = index in self.folds
            edits = [self.folds[index][1]] if folded else self.edits.get(index, {}).values()
            if any(edit.explains for edit in edits):
                return True
        return False


def _text_of(edit: Edit) -> str:
    return edit.block.text + (wording.EXPLANATION if edit.explains else "")
