"""The calls that the reasoner makes to the memory's tools, answered by the gateway."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from clara_mlx.context import Context, tools
from clara_mlx.context.messages import Message
from clara_mlx.serve.figures import Figures
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.reply import Call
from clara_mlx.serve.sight import Sight

logger = logging.getLogger(__name__)

# What the reasoner reads in place of a result.
_ENOUGH = "The memory was asked often enough for one answer. Answer now with what you have."
_AGAIN = "This call was answered above."
_LONG = "The arguments of this call are too long."

# Characters of a call's arguments.
_MOST_CHARACTERS = 100_000


@dataclass(frozen=True)
class Answered:
    """What was answered to calls of the memory's tools.

    Attributes:
        results: One message for each call.
        calls: The number of those that the memory was asked.
        memories: The handles of the memories that the results are from, each with the tool.
    """

    results: list[Message]
    calls: int
    memories: tuple[tuple[str, str], ...]


class MemoryCalls:
    """Answers the calls that the reasoner makes in the middle of an answer."""

    def __init__(self, context: Context, pools: Pools, figures: Figures) -> None:
        self._context = context
        self._pools = pools
        self._figures = figures

    async def answer(
        self,
        calls: Sequence[Call],
        sight: Sight,
        asked: set[tuple[str, str]],
        shown: str,
        *,
        enough: bool,
    ) -> Answered:
        """The results of calls, one message for each.

        Args:
            calls: The calls.
            sight: What the conversation may see.
            asked: The calls that were made for this answer before; the new ones are added.
            shown: What the reasoner has in sight; it is not told again.
            enough: Whether there have been too many rounds for these calls to be answered.
        """
        results: list[Message] = []
        memories: list[tuple[str, str]] = []
        answered = 0
        # Calls of one round are answered in one prompt: more than two share the room of two pages.
        page = min(self._context.budget.page, 2 * self._context.budget.page // max(1, len(calls)))
        for call in calls:
            key = (call.name, call.arguments.strip())
            if enough:
                text = _ENOUGH
            elif key in asked:
                text = _AGAIN
            elif len(call.arguments) > _MOST_CHARACTERS:
                text = _LONG
            else:
                answered += 1
                text, handles = await self._ask(call, sight, shown, page)
                memories += [(handle, call.name) for handle in handles]
                shown = f"{shown}\n{text}"
            asked.add(key)
            results.append({"role": "tool", "tool_call_id": call.id, "content": text})
        return Answered(results, answered, tuple(memories))

    async def _ask(self, call: Call, sight: Sight, shown: str, page: int) -> tuple[str, list[str]]:
        """The result of a call, and the handles of the memories that it is from."""
        self._figures.memory_calls.labels(call.name, "reasoner").inc()

        def ask() -> tuple[str, list[str]]:
            text = tools.call(
                self._context.memory,
                call.name,
                call.arguments,
                where=sight.where,
                sees=None if sight.everything else sight.sees,
                shown=shown,
                page=page,
            )
            return text, tools.handles_in_result(call.name, text)

        try:
            return await self._pools.ask(ask)
        except Exception:  # the reasoner can continue without this result
            logger.exception("%s: the call to %s failed", sight.session, call.name)
            return f"{call.name} failed", []
