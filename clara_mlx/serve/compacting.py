"""Compaction as a service: a conversation becomes one text, with no call to a model.

Some clients shorten their conversations themselves, and ask their server for what is to take the
place of the old messages. They get a fold: what was said and done, a line for each, with handles
behind which everything is kept.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from clara_mlx.context.summary import Summary
from clara_mlx.errors import ClaraError, for_strangers
from clara_mlx.serve.apis import Writer
from clara_mlx.serve.bookkeeping import Bookkeeper
from clara_mlx.serve.desk import Desk
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.figures import Figures
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.reply import Reply
from clara_mlx.serve.runs import Run
from clara_mlx.store.ledger import Round
from clara_mlx.store.protocol import DatabaseUrl

logger = logging.getLogger(__name__)


class Compactor:
    """Compacts the conversations of clients that ask for it.

    Args:
        name: The name under which clients know the model.
        memory: The path of the memory's file, which is not theirs to know.
        pools: The threads in which it is done.
        figures: Counts the compactions.
        books: Writes them to the ledger.
    """

    def __init__(
        self,
        name: str,
        memory: Path | DatabaseUrl,
        pools: Pools,
        figures: Figures,
        books: Bookkeeper,
    ) -> None:
        self._name = name
        self._memory = memory
        self._pools = pools
        self._figures = figures
        self._books = books

    async def compact(self, desk: Desk, run: Run, writer: Writer) -> None:
        """Write the compaction of the conversation that lies on a desk into a run.

        Raises:
            ApiError: The memory failed.
        """
        begun = time.time()
        try:
            summary = await self._pools.prepare(lambda: _summarize(desk), distant=desk.is_distant)
        except ApiError:
            raise
        except ClaraError as error:
            reason = for_strangers(str(error), self._memory)
            message = f"the memory could not compact this conversation: {reason}"
            raise ApiError(503, message, code="memory_failed", retry=True) from error
        session = desk.name.text
        conversation = self._figures.conversation(session)
        conversation.requests += 1
        reason = "its client asked for it"
        self._figures.count_compaction(conversation, [summary.handle], reason)
        self._books.add(
            Round(
                at=begun,
                session=session,
                project=desk.project,
                agent=desk.caller.agent,
                api=desk.request.api,
                model=self._name,
                served_by="memory",
                seconds=time.time() - begun,
                why="no model was asked",
                reason=reason,
                before=summary.original_tokens,
                after=summary.tokens,
                compacted=(summary.handle,),
            )
        )
        logger.info("%s: compacted for its client (%s)", session, summary.handle)
        run.headers["x-clara-session"] = session
        # It is an answer in all but who gives it.
        reply = Reply(frozenset())
        usage = {"prompt_tokens": summary.original_tokens, "completion_tokens": summary.tokens}
        reply.take_chunk({"choices": [{"delta": {"content": summary.text}}], "usage": usage})
        writer.write(self._name, {}, None)
        writer.finish(reply)


def _summarize(desk: Desk) -> Summary:
    desk.look()
    return desk.summarize()
