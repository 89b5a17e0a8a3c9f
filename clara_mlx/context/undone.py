"""Conversations whose compaction was undone: they are sent as they came again, while they fit.

A request names its conversation and sends all of its messages, but whoever undoes it knows only the
name. So what has a handle is set aside at once, by the session that the handle's memory belongs to;
a mark says that the rest, such as notes, goes with the conversation's next request. Another mark
stays: such a conversation is compacted only if it would not fit, and without folds if that is
enough, because a fold may have been what its reasoner refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from clara_mlx.context.table import Block, BlockTable, Edit
from clara_mlx.errors import ClaraError

# The marks, as parts of edits of a message that no conversation has.
_UNDONE = "undone"
_LEFT_OVER = "left over"


class UnknownSession(ClaraError):
    """The memory has nothing of a conversation."""


class Undone:
    """Marks conversations whose compaction was undone. Safe to use from several threads.

    Args:
        table: Keeps the edits and the marks.
    """

    def __init__(self, table: BlockTable) -> None:
        self._table = table

    def undo(self, session: str) -> int:
        """Set the edits of a conversation aside; originals, handles and hidden rounds stay.

        Returns the number of blocks and folds that were sent in the place of its messages.

        Raises:
            UnknownSession: The memory has nothing of it.
            StoreError: The memory can't be written to.
        """
        if not self._table.knows_session(session):
            raise UnknownSession(
                f"this memory has nothing of a conversation named {session!r}; the gateway's "
                "answers bear the name as x-clara-session"
            )
        key = _key(session)
        text = f"[clara undone {key.hex()[:12]}]"
        block = self._table.keep(Block(hashlib.sha256(key).digest(), "note", text, None))
        dropped = self._table.drop_edits_of_session(session)
        self._table.save_edits([Edit(key, mark, block) for mark in (_UNDONE, _LEFT_OVER)])
        return dropped

    def look(self, session: str, chains: Sequence[bytes]) -> bool:
        """Whether a conversation was undone; if what is left over has to go, it goes now.

        Args:
            session: Its name.
            chains: The chain that ends with each of its messages.
        """
        marks = {edit.part: edit for edit in self._table.edits([_key(session)])}
        if _LEFT_OVER in marks:
            self._table.drop_edits(chains)
            self._table.save_edits([], without=[marks[_LEFT_OVER]])
        return _UNDONE in marks


def _key(session: str) -> bytes:
    return hashlib.sha256(b"undone\0" + session.encode("utf-8", "surrogatepass")).digest()
