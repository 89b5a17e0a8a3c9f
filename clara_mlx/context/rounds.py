"""Rounds that a client never saw: kept, and put back where they belong in its next requests.

When the reasoner asks the memory in the middle of an answer, the client sees only the answer. In
its next request the rounds are missing: the reasoner would have forgotten what it read, and the
server's cached prefix would end there. They are kept in the memory's file beside the blocks, so
that forgetting a memory removes the rounds that quote it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import Message, chains
from clara_mlx.context.recent import Recent

# Messages at the end of what is known: rounds are kept while the client gets its answer, which can
# be when it has asked again already.
_KEPT_LATE = 8


class HiddenRounds:
    """The hidden rounds of a memory file's conversations. Safe to use from several threads."""

    def __init__(self, freezer: Freezer) -> None:
        self._freezer = freezer
        # The chains of the answers that have hidden rounds, by conversation.
        self._recent: Recent[frozenset[bytes]] = Recent()

    def keep(
        self,
        messages: Sequence[Message],
        seen: Message,
        rounds: Sequence[Message],
        session: str,
    ) -> None:
        """Keep the rounds that led to an answer.

        Args:
            messages: The conversation as the client sent it.
            seen: The answer as the client got it.
            rounds: The messages that belong in its place.
            session: The conversation's name.

        Raises:
            StoreError: A memory that the rounds quote has just been forgotten.
        """
        chain = chains([*messages, seen], session)[-1]
        written = json.dumps(list(rounds), ensure_ascii=False)
        self._freezer.table.keep_rounds(chain, written, self._freezer.known_handles(written))

    def put_back(self, messages: Sequence[Message], session: str) -> list[Message]:
        """The conversation with its hidden rounds, as the reasoner knows it."""
        return [message for group in self.by_message(messages, session) for message in group]

    def by_message(self, messages: Sequence[Message], session: str) -> list[list[Message]]:
        """For each message, those that the reasoner knows in its place; mostly itself alone."""
        known = self._recent.look(messages, session)
        # Those of the newest answers may have been kept since.
        new = range(max(0, known.same - _KEPT_LATE), len(messages))
        answers = [known.chains[i] for i in new if messages[i]["role"] == "assistant"]
        answers += (known.found or frozenset()).intersection(known.chains)
        found = self._freezer.table.rounds(list(dict.fromkeys(answers)))
        self._recent.keep(known, frozenset(found))
        if not found:
            return [[message] for message in messages]
        full: list[list[Message]] = []
        for chain, message in zip(known.chains, messages, strict=True):
            hidden = found.get(chain) if message["role"] == "assistant" else None
            full.append(json.loads(hidden) if hidden else [message])
        return full
