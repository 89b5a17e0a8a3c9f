"""The reasoner's calls of the memory's tools, answered here."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from clara_mlx.context import tools
from clara_mlx.context.messages import Message
from clara_mlx.memory import Memory
from clara_mlx.serve.job import Job
from clara_mlx.serve.metrics import Metrics
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.reply import Call

logger = logging.getLogger(__name__)

_ENOUGH = "The memory was asked often enough for one answer. Answer now with what you have."
_AGAIN = "This call was answered above."
_TOO_MUCH = "This does not fit beside the conversation. Ask for fewer lines, or with find."


class MemoryCalls:
    """Answers memory calls in threads.

    Args:
        memory: what is asked.
        everything: all of it is searched, not the conversation's memories only.
    """

    def __init__(self, memory: Memory, pools: Pools, metrics: Metrics, *, everything: bool) -> None:
        self._memory, self._pools, self._metrics = memory, pools, metrics
        self._everything = everything

    async def results(self, job: Job, calls: Sequence[Call], *, enough: bool) -> list[Message]:
        """The messages with the results, one for each call.

        Args:
            job: the answer in which the calls were made.
            calls: of the memory's tools.
            enough: there were so many that these are not answered.
        """
        results: list[Message] = []
        for call in calls:
            named = (call.name, call.arguments.strip())
            if enough:
                text = _ENOUGH
            elif named in job.asked:
                text = _AGAIN
            else:
                text = await self._result(job.session, call)
            job.asked.add(named)
            results.append({"role": "tool", "tool_call_id": call.id, "content": text})
        return results

    async def _result(self, session: str, call: Call) -> str:
        where = None if self._everything else {"session": session}
        self._metrics.memory_calls.labels(call.name, "reasoner").inc()
        try:
            return await self._pools.ask(
                lambda: tools.call(self._memory, call.name, call.arguments, where=where)
            )
        except Exception:  # the reasoner can go on without this result
            logger.exception("%s failed", call.name)
            return f"{call.name} failed"


def shortened(job: Job) -> bool:
    """Take the newest results back, which do not fit; whether there were any."""
    for message in job.hidden[len(job.hidden) - job.results :]:
        message["content"] = _TOO_MUCH
    there_were, job.results = job.results > 0, 0
    return there_were
