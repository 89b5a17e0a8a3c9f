"""Remembers the long texts of conversations in the background, after each answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict

from clara_mlx.context import Context
from clara_mlx.context.messages import Message
from clara_mlx.errors import ClaraError
from clara_mlx.serve.pools import Pools

logger = logging.getLogger(__name__)

# The most conversations that wait; the oldest is dropped, and its texts are then remembered only
# when they are compacted.
_MOST_WAITING = 256

# The most conversations whose progress is known; one that is dropped is looked at from the start.
_MOST_KNOWN = 256


class Observer:
    """Remembers the long texts of conversations, one after the other, the newest state first.

    A later request has all that the earlier ones had. So only the newest state of each conversation
    waits, and the waiting list stays short however many requests come.
    """

    def __init__(self, context: Context, pools: Pools) -> None:
        self._context = context
        self._pools = pools
        self._waiting: OrderedDict[str, list[Message]] = OrderedDict()
        # By session: the number of messages that are remembered, and a digest of the last of them.
        self._done: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def remember_soon(self, session: str, messages: list[Message]) -> None:
        """Remember a conversation's long texts when there is time."""
        self._waiting[session] = messages
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._remember_waiting())

    async def close(self, seconds: float) -> None:
        """Remember what still waits, for at most this many seconds."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
            self._waiting.clear()
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _remember_waiting(self) -> None:
        while self._waiting:
            session, messages = self._waiting.popitem(last=False)
            new = messages[self._first_new(session, messages) :]
            try:
                await self._pools.write(lambda m=new, s=session: self._context.observe(m, s))  # type: ignore[misc]
            except ClaraError as error:
                logger.warning("%s: this conversation could not be remembered: %s", session, error)
                continue
            self._done[session] = len(messages), _digest(messages[-1])
            self._done.move_to_end(session)
            if len(self._done) > _MOST_KNOWN:
                self._done.popitem(last=False)

    def _first_new(self, session: str, messages: list[Message]) -> int:
        """The index of the first message to look at; a call comes with its results."""
        count, last = self._done.get(session, (0, b""))
        if not 0 < count <= len(messages) or _digest(messages[count - 1]) != last:
            return 0
        while 0 < count < len(messages) and messages[count]["role"] == "tool":
            count -= 1
        return count


def _digest(message: Message) -> bytes:
    return hashlib.sha256(json.dumps(message, sort_keys=True).encode()).digest()
