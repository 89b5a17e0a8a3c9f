"""Keeps the ledger: what each prompt was and what it cost, written off the requests' path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from clara_mlx.context.budget import Cache
from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory
from clara_mlx.serve.answer import Answer
from clara_mlx.serve.figures import Conversation
from clara_mlx.serve.memory_calls import Answered
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.reasoner_cache import ReasonerCache
from clara_mlx.serve.reply import Object
from clara_mlx.serve.usage import cached_tokens, stated_tokens, states_cached
from clara_mlx.store.fields import LONGEST_NAME
from clara_mlx.store.ledger import MCP, CacheEffect, Round

logger = logging.getLogger(__name__)

#: The tools by which a client asks back what was seen.
ASKS_BACK = frozenset(("ask_memory", "expand", "recall"))

# Seconds for which rounds are collected before they are written together. The end of the process
# by force takes no more than these.
_COLLECT_SECONDS = 1.0

# Seconds after which it is tried again to write, if the memory can't be written.
_PAUSE_SECONDS = 30.0

# The most rounds that wait; the oldest are dropped. Each takes about a kilobyte.
_MOST_WAITING = 2_000

# Characters of a name or an error that others chose.
_MOST_CHARACTERS = 300

# A server is taken to have kept a prefix if it reports more than this share of it as cached, and
# to have lost it if it reports less than the other.
_KEPT = 0.75
_LOST = 0.05


class Bookkeeper:
    """Writes rounds to the ledger of a memory, many together. Used from the event loop only."""

    def __init__(self, memory: Memory, pools: Pools) -> None:
        self._memory = memory
        self._pools = pools
        self._waiting: deque[Round] = deque(maxlen=_MOST_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._failed = False
        self._ending = asyncio.Event()

    # -- one round -------------------------------------------------------------------------------

    def begin_round(self, answer: Answer, model: str, number: int) -> None:
        """Begin the next round of an answer.

        Args:
            answer: The answer.
            model: The model, as the client names it.
            number: How many rounds the answer has had before.
        """
        self.close_round(answer)
        answer.round = Round(
            at=time.time(),
            session=answer.session,
            project=plain(answer.desk.project, LONGEST_NAME),
            agent=plain(answer.desk.caller.agent),
            api=answer.request.api,
            model=plain(model),
            number=number,
        )

    def note_compaction(self, answer: Answer, prompt: Prompt) -> None:
        """Note what was compacted for a round, what that gave and what it cost."""
        exchange = prompt.exchange
        assert answer.round is not None
        answer.round = replace(
            answer.round,
            reason=prompt.reason,
            compacted=prompt.compacted,
            before=exchange.before if exchange else None,
            after=exchange.after if exchange else None,
            lost=exchange.lost if exchange else None,
        )

    def note_answer(
        self, answer: Answer, prompt: Prompt, usage: Object | None, model: str, cache: ReasonerCache
    ) -> None:
        """Note what a round took; the conversation's figures must still have the prompt before.

        Args:
            answer: The answer.
            prompt: What was sent.
            usage: What the endpoint says of it.
            model: The model, as the client names it.
            cache: What the reasoner's server keeps of a prompt that changes.
        """
        assert answer.round is not None
        by_reasoner = answer.route.by == "reasoner"
        done = replace(
            answer.round,
            model=plain(model),
            served_by=answer.route.by,
            seconds=time.time() - answer.round.at,
            tokens_in=prompt.tokens_in,
            tokens_sent=stated_tokens(usage, "prompt_tokens") or prompt.tokens,
            completion_tokens=stated_tokens(usage, "completion_tokens"),
        )
        if by_reasoner:
            common, appended = answer.conversation.in_common(prompt.parts)
            stated = cached_tokens(usage) if states_cached(usage) else None
            expected = cache.expected(common, appended=appended)
            done = replace(done, cached_expected=expected, cached_reported=stated)
            effect, why = cache_effect(done, answer.conversation, prompt, cache.kind)
            done = replace(done, cache=effect, why=why)
        else:
            done = replace(done, why="the fallback answered, whose cache is not known")
        answer.round = done

    def note_asked_back(self, answer: Answer, answered: Answered) -> None:
        """Note what a round asked the memory."""
        assert answer.round is not None
        answer.round = replace(answer.round, memory_calls=answered.calls, asked=answered.memories)

    def close_round(self, answer: Answer, error: str = "") -> None:
        """Have the newest round written, if there is one.

        ``error`` says why it was not answered; it is left out if it was.
        """
        if answer.round is not None:
            unanswered = not answer.round.tokens_sent
            self.add(replace(answer.round, error=plain(error) if unanswered else ""))
            answer.round = None

    def note_mcp_call(self, tool: str, arguments: dict[str, Any]) -> None:
        """Note what a client asked back by MCP; nobody says for which of its prompts."""
        if tool in ASKS_BACK:
            handle, session = arguments.get("handle"), arguments.get("session")
            self.add(
                Round(
                    at=time.time(),
                    session=plain(session) if isinstance(session, str) else "",
                    api=MCP,
                    served_by="memory",
                    why="it was asked by MCP",
                    memory_calls=1,
                    asked=((plain(handle), tool),) if isinstance(handle, str) else (),
                )
            )

    # -- writing ---------------------------------------------------------------------------------

    def add(self, one: Round) -> None:
        """Have a round written soon; this takes no time and never fails."""
        self._waiting.append(one)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        while self._waiting and not self._ending.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_SECONDS if self._failed else _COLLECT_SECONDS):
                    await self._ending.wait()
            await self._write()

    async def _write(self) -> None:
        """Write what waits; if that may succeed later, it goes on waiting."""
        rounds = list(self._waiting)
        self._waiting.clear()
        try:
            await self._pools.write(lambda: self._memory.ledger.write(rounds))
            self._failed = False
        except StoreError as error:
            if not self._failed:
                logger.warning("the figures of requests can't be written to the memory: %s", error)
            self._failed = True
            if error.transient:
                self._waiting = deque([*rounds, *self._waiting], maxlen=_MOST_WAITING)
            elif len(rounds) > 1:  # one that can't be written must not take the others with it
                for one in rounds:
                    with suppress(StoreError):
                        await self._pools.write(partial(self._memory.ledger.write, [one]))

    async def close(self) -> None:
        """Write what waits."""
        self._ending.set()
        if self._task is not None:
            await self._task
        if self._waiting:
            await self._write()


def plain(text: str, most: int = _MOST_CHARACTERS) -> str:
    """A text that others chose, as the ledger can keep it: Unicode, and not long."""
    return text[:most].encode("utf-8", "replace").decode()


def cache_effect(
    one: Round, conversation: Conversation, prompt: Prompt, kind: Cache
) -> tuple[CacheEffect, str]:
    """What became of the prefix that the reasoner's server had, and why, in a few words.

    Args:
        one: The round, with its tokens.
        conversation: The conversation's figures, which still have the prompt before this one.
        prompt: What was sent.
        kind: What the server keeps of a prompt that changes.
    """
    if not conversation.prompt:
        return "first", "the gateway had sent no prompt of this conversation since it started"
    common, appended = conversation.in_common(prompt.parts)
    if appended:
        why = "the prompt was only appended to"
    else:
        who = "a compaction" if one.compacted else "its client"
        why = f"{who} changed the prompt after {common:,} tokens"
    reported = one.cached_reported
    if reported is None:
        if not appended and kind == "whole":
            return "miss", f"{why}, and this server keeps nothing of one that changes"
        return ("hit" if appended else "partial"), why
    if reported <= _LOST * common:
        return "miss", f"{why}, and the server had nothing of it any more"
    if reported < _KEPT * common:
        return "partial", f"{why}, and the server had only a part of it"
    return ("hit" if appended else "partial"), why
