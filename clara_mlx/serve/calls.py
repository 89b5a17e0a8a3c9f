"""The reasoner's calls of the memory's tools, answered here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clara_mlx.context import tools
from clara_mlx.context.messages import Message
from clara_mlx.memory import Memory
from clara_mlx.serve.figures import Figures
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.reply import Call

logger = logging.getLogger(__name__)

_ENOUGH = "The memory was asked often enough for one answer. Answer now with what you have."
_AGAIN = "This call was answered above."

#: Takes the place of results that do not fit.
TOO_LONG = "This does not fit beside the conversation. Ask for fewer lines, or with find."


class MemoryCalls:
    """Answers memory calls in threads.

    Args:
        memory: The memory that is asked.
        pools: The threads.
        figures: Where the calls are counted.
        everything: Whether all memories are searched, not only the conversation's.
    """

    def __init__(self, memory: Memory, pools: Pools, figures: Figures, *, everything: bool) -> None:
        self._memory = memory
        self._pools = pools
        self._figures = figures
        self._everything = everything

    async def answer(
        self, calls: Sequence[Call], session: str, asked: set[tuple[str, str]], *, enough: bool
    ) -> list[Message]:
        """The messages with the results, one for each call.

        Args:
            calls: The calls of the memory's tools.
            session: The conversation's name.
            asked: The calls of earlier rounds, which are not answered again; these are added.
            enough: Whether there were so many rounds that none of these is answered.
        """
        results: list[Message] = []
        for call in calls:
            key = (call.name, call.arguments.strip())
            if enough:
                text = _ENOUGH
            elif key in asked:
                text = _AGAIN
            else:
                text = await self._ask_memory(session, call)
            asked.add(key)
            results.append({"role": "tool", "tool_call_id": call.id, "content": text})
        return results

    async def _ask_memory(self, session: str, call: Call) -> str:
        where = None if self._everything else {"session": session}
        self._figures.memory_calls.labels(call.name, "reasoner").inc()
        try:
            return await self._pools.ask(
                lambda: tools.call(self._memory, call.name, call.arguments, where=where)
            )
        except Exception:  # the reasoner can go on without this result
            logger.exception("%s: the call of %s failed", session, call.name)
            return f"{call.name} failed"
