"""Drafts: the texts of blocks, made while nobody waits for them.

To choose what a block says takes longer than all else that a new text costs, and the block is not
needed before a compaction. So `Freezer.observe_all` only lets a text wait here. Whoever has time to
spare, as while the reasoner answers, makes what waits with `Drafts.make`; a compaction makes what
it needs and does not find. A draft depends on its text alone, so that it is the same either way.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from clara_mlx.context.budget import Budget
from clara_mlx.context.counting import BYTES_PER_TOKEN
from clara_mlx.context.kept import is_recalled, wording_of
from clara_mlx.context.messages import Piece
from clara_mlx.context.table import BlockTable

# The number of drafts that are kept at hand.
_MOST_DRAFTS = 8_192

# Conversations of which texts wait; the texts of the least recent ones are then drafted when they
# are needed.
_CONVERSATIONS = 64

# Characters of all texts that wait; those of the newest conversation wait however many they are.
_CHARACTERS = 8_000_000

# A conversation of less than this share of what triggers a compaction needs no drafts yet.
_NEEDED_FROM = 0.5


@dataclass
class _Waiting:
    """The texts of one conversation that wait, by their digests."""

    texts: dict[bytes, Piece] = field(default_factory=dict)
    characters: int = 0  # of all its texts that ever waited


class Drafts:
    """The drafts of one memory file. Safe to use from several threads.

    Args:
        table: Has the blocks that were chosen already, whose texts count.
        handle_of: Gives the handle that a piece of a session has, or will have.
    """

    def __init__(self, table: BlockTable, handle_of: Callable[[str, Piece], str]) -> None:
        self._table = table
        self._handle_of = handle_of
        self._made: dict[bytes, str] = {}
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._characters = 0  # of all texts that wait
        self._lock = threading.Lock()

    def text(self, session: str, piece: Piece, excerpt: int, digest: bytes) -> str:
        """The text of a piece's block, which is made now if it was not before.

        Args:
            session: The conversation's name.
            piece: The piece.
            excerpt: Characters of it to show in the block; 0: none.
            digest: What identifies the block; see `kept.digest_of`.
        """
        text = self._made.get(digest)
        if text is None:
            block = self._table.block(digest)
            text = block.text if block else self._word(session, piece, excerpt)
            if len(self._made) >= _MOST_DRAFTS:
                self._made.clear()
            self._made[digest] = text
        return text

    def let_wait(self, session: str, pieces: Mapping[bytes, Piece]) -> None:
        """Let pieces of a conversation, given by their digests, wait for their drafts."""
        with self._lock:
            waiting = self._waiting.setdefault(session, _Waiting())
            self._waiting.move_to_end(session)
            there = (self._made, waiting.texts)
            new = {d: one for d, one in pieces.items() if not any(d in some for some in there)}
            waiting.texts.update(new)
            waiting.characters += _characters(new)
            self._characters += _characters(new)
            while len(self._waiting) > 1 and (
                len(self._waiting) > _CONVERSATIONS or self._characters > _CHARACTERS
            ):
                _, oldest = self._waiting.popitem(last=False)
                self._characters -= _characters(oldest.texts)

    def make(self, session: str, characters: float) -> None:
        """Make the drafts of a conversation's texts that wait, if they have come to be needed soon.

        That is once all of its texts have more characters than the caller says.
        """
        with self._lock:
            waiting = self._waiting.get(session)
            if waiting is None or waiting.characters <= characters:
                return
            texts, waiting.texts = waiting.texts, {}
            self._characters -= _characters(texts)
        for digest, piece in texts.items():
            self.text(session, piece, 0, digest)

    def _word(self, session: str, piece: Piece, excerpt: int) -> str:
        handle = "" if is_recalled(piece) else self._handle_of(session, piece)
        return wording_of(session, piece, excerpt)(handle)


def needed_from(budget: Budget) -> float:
    """Characters of a conversation's texts from which on their drafts are needed soon."""
    return _NEEDED_FROM * budget.trigger * budget.limit * BYTES_PER_TOKEN


def _characters(pieces: Mapping[bytes, Piece]) -> int:
    return sum(len(piece.text) for piece in pieces.values())
