"""Remembers the long texts of conversations in the background, after each answer."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from functools import partial

from clara_mlx.context.messages import Message
from clara_mlx.errors import ClaraError
from clara_mlx.serve.desk import NOTHING, Desk, Remembered
from clara_mlx.serve.pools import Pools

logger = logging.getLogger(__name__)

# The most conversations that wait; the oldest is dropped, and its texts are then remembered only
# when they are compacted.
_MOST_WAITING = 256

# The most bytes of all that wait; the newest waits however long it is.
_MOST_BYTES = 64 << 20

# The most conversations whose progress is known; one that is dropped is looked at from the start.
_MOST_KNOWN = 256


class Observer:
    """Remembers the long texts of conversations, one after the other, the newest state first.

    A later request has all that the earlier ones had. So only the newest state of each conversation
    waits, and the waiting list stays short however many requests come. Those that lie in another
    process have a list of their own, so that the others don't wait for them.
    """

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._lists = {False: _List(), True: _List()}  # by `Desk.is_distant`
        self._remembered: OrderedDict[str, Remembered] = OrderedDict()  # by session

    def remember_soon(self, desk: Desk, hidden: list[Message]) -> None:
        """Remember a conversation's long texts, and those of its hidden rounds, in the background.

        ``hidden`` are the rounds of the newest answer.
        """
        waiting = self._lists[desk.is_distant]
        waiting.add(desk, hidden)
        if waiting.task is None or waiting.task.done():
            waiting.task = asyncio.create_task(self._remember(waiting))

    async def close(self, seconds: float) -> None:
        """Remember what still waits, for at most this many seconds."""
        tasks = [one.task for one in self._lists.values() if one.task is not None]
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=seconds)
        for one in self._lists.values():
            one.desks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _remember(self, waiting: _List) -> None:
        while waiting.desks:
            session, (desk, hidden) = waiting.desks.popitem(last=False)
            before = self._remembered.get(session, NOTHING)
            try:
                done, has_more = await self._pools.write(
                    partial(desk.observe, hidden, before), distant=desk.is_distant
                )
            except ClaraError as error:
                logger.warning("%s: this conversation could not be remembered: %s", session, error)
                continue
            if has_more and session not in waiting.desks:
                waiting.desks[session] = desk, hidden
            self._remembered[session] = done
            self._remembered.move_to_end(session)
            if len(self._remembered) > _MOST_KNOWN:
                self._remembered.popitem(last=False)


class _List:
    """Conversations that wait, the one that has waited longest first."""

    def __init__(self) -> None:
        self.desks: OrderedDict[str, tuple[Desk, list[Message]]] = OrderedDict()
        self.task: asyncio.Task[None] | None = None  # remembers them

    def add(self, desk: Desk, hidden: list[Message]) -> None:
        """Add a conversation in the place of its earlier state, and drop others if need be."""
        self.desks[desk.name.text] = desk, hidden
        size = sum(one.size for one, _ in self.desks.values())
        while len(self.desks) > _MOST_WAITING or (size > _MOST_BYTES and len(self.desks) > 1):
            _, (dropped, _) = self.desks.popitem(last=False)
            size -= dropped.size
