"""Rounds that a client never saw: kept, and put back where they belong in its next requests.

When the reasoner asks the memory in the middle of an answer, the client sees only the answer. In
its next request the rounds are missing: the reasoner would have forgotten what it read, and the
server's cached prefix would end there. They are kept in the memory's file beside the blocks, so
that forgetting a memory removes the rounds that quote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from clara_mlx.context.freezer import HANDLE
from clara_mlx.context.messages import Message, chains
from clara_mlx.context.table import Block, BlockTable, Edit
from clara_mlx.memory import Memory

# An edit of a message that takes several messages in its place. The context's own edits are found
# by the chain itself, these by a digest of it, so neither sees the other's.
_PART = "rounds"


class Replay:
    """The hidden rounds of a memory file's conversations. Safe to use from several threads."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._table = BlockTable(memory.file)

    def keep(
        self,
        messages: Sequence[Message],
        seen: Message,
        rounds: Sequence[Message],
        session: str,
    ) -> None:
        """Keep what stands behind an answer.

        Args:
            messages: the conversation as the client sent it.
            seen: the answer as the client got it.
            rounds: the messages that are to stand in its place.
            session: the conversation's name.

        Raises:
            StoreError: a memory that the rounds quote was forgotten meanwhile.
        """
        key = _key(chains([*messages, seen], session)[-1])
        body = json.dumps(list(rounds), ensure_ascii=False)
        quoted = dict.fromkeys(HANDLE.findall(body))
        block = Block(_sha256(key), "note", f"[clara rounds {key.hex()[:12]}]", None, body)
        kept = self._table.keep(block, [h for h in quoted if self._memory.has(h)])
        self._table.edit([Edit(key, _PART, kept)])

    def restored(self, messages: Sequence[Message], session: str) -> list[Message]:
        """The conversation with its hidden rounds, as the reasoner knows it."""
        keys = [_key(chain) for chain in chains(messages, session)]
        assistants = [k for k, m in zip(keys, messages, strict=True) if m["role"] == "assistant"]
        found = {e.chain: e.block.body for e in self._table.edits(assistants) if e.part == _PART}
        full: list[Message] = []
        for key, message in zip(keys, messages, strict=True):
            body = found.get(key) if message["role"] == "assistant" else None
            full += json.loads(body) if body else [message]
        return full


def _key(chain: bytes) -> bytes:
    return _sha256(b"rounds\0" + chain)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
