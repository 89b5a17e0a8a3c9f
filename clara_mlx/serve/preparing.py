"""From a client's conversation to what a reasoner is sent: hidden rounds, blocks, tools."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.context import Context, ContextOverflow, Prepared
from clara_mlx.context.counting import rough
from clara_mlx.context.messages import Message, content_text
from clara_mlx.context.rounds import Replay
from clara_mlx.context.tools import SCHEMAS
from clara_mlx.errors import ClaraError
from clara_mlx.serve import payload
from clara_mlx.serve.errors import Overflow, too_long
from clara_mlx.serve.figures import Prompt, prompt_of
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.settings import Settings

logger = logging.getLogger(__name__)

# Characters at the end of a long message that say what it needs.
_QUESTION = 1000


@dataclass(frozen=True)
class Ready:
    """What to send in one round.

    Attributes:
        messages: compacted as far as need be.
        full: the same without any compaction, with hidden rounds.
        tools: the client's, and ours where they are offered.
        own: names of those that are answered here.
        tokens: of the prompt; ``exact`` says whether that is the reasoner's own count.
        tokens_in: about those of the conversation without compaction.
        compacted: handles of what became blocks in this round.
        reason: why it was compacted, or not.
        prompt: its parts, to compare with the next one's.
        overflow: it does not fit the reasoner, however it is compacted.
        degraded: the memory failed; the conversation is sent as it came.
    """

    messages: list[Message]
    full: list[Message]
    tools: list[dict[str, Any]]
    own: frozenset[str]
    tokens: int
    exact: bool
    tokens_in: int
    compacted: tuple[str, ...] = ()
    reason: str = ""
    prompt: Prompt = field(default_factory=list, repr=False)
    overflow: Overflow | None = None
    degraded: bool = False

    @property
    def is_edited(self) -> bool:
        """Whether something is sent otherwise than it came."""
        return self.messages != self.full


class Preparer:
    """Makes requests ready. It blocks: call it in a thread."""

    def __init__(self, settings: Settings, context: Context) -> None:
        self._settings, self._context = settings, context
        self.replay = Replay(context.memory)

    def restored(self, request: ChatRequest, session: str) -> list[Message]:
        """The conversation with the rounds that its client never saw."""
        try:
            return self.replay.restored(request.messages, session)
        except ClaraError as error:
            logger.warning("hidden rounds of %s could not be read: %s", session, error)
            return request.messages

    def ready(
        self,
        request: ChatRequest,
        full: Sequence[Message],
        session: str,
        *,
        offer: bool,
        ask: bool,
    ) -> Ready:
        """What to send for a conversation.

        Args:
            request: of the client.
            full: its messages with hidden rounds, those of this answer included.
            session: the conversation's name.
            offer: its reasoner has been offered the memory's tools before.
            ask: what the newest message needs may be brought back to it.
        """
        tools, own = self._tools(request, offer)
        found = self._ready(request, list(full), session, tools, own, ask)
        if found.is_edited and not own:  # now there is something to ask for
            tools, own = self._tools(request, True)
            if own:
                found = self._ready(request, list(full), session, tools, own, ask=False)
        return found

    def _tools(
        self, request: ChatRequest, offer: bool
    ) -> tuple[list[dict[str, Any]], frozenset[str]]:
        """The tools to send, sorted so that the prompt's beginning stays the same, and our own."""
        if payload.without_tools(request, self._settings.reasoner):
            return [], frozenset()
        offers = {"always": True, "never": False, "auto": offer or bool(request.tools)}
        if not offers[self._settings.offer]:
            return request.tools, frozenset()
        taken = {tool["function"]["name"] for tool in request.tools}  # then the client answers it
        ours = [tool for tool in SCHEMAS if tool["function"]["name"] not in taken]
        tools = sorted([*request.tools, *ours], key=lambda tool: str(tool["function"]["name"]))
        return tools, frozenset(tool["function"]["name"] for tool in ours)

    def _ready(
        self,
        request: ChatRequest,
        full: list[Message],
        session: str,
        tools: list[dict[str, Any]],
        own: frozenset[str],
        ask: bool,
    ) -> Ready:
        count = self._context.counter.text
        question = content_text(full[-1])[-_QUESTION:] if ask and full[-1]["role"] == "user" else ""
        try:
            prepared = self._prepared(full, session, tools, question)
        except ContextOverflow as error:
            budget = self._settings.budget
            overflow = too_long(error.tokens, budget.window, budget.reserve)
            tokens = rough(full, tools, count)
            return Ready(full, full, tools, own, tokens, False, tokens, overflow=overflow)
        except ClaraError as error:  # e.g. the disk is full: the agent can go on without it
            logger.warning("%s is sent as it came, the memory failed: %s", session, error)
            return self._as_it_came(full, tools, own)
        return Ready(
            prepared.messages,
            full,
            tools,
            own,
            prepared.tokens,
            prepared.exact,
            prepared.original_tokens,
            prepared.compacted,
            prepared.reason,
            prompt_of(prepared.messages, tools, count),
        )

    def _prepared(
        self, full: list[Message], session: str, tools: list[dict[str, Any]], question: str
    ) -> Prepared:
        if question.strip():
            try:
                return self._context.prepare(full, tools=tools, session=session, question=question)
            except ContextOverflow:
                raise
            except ClaraError as error:  # a question that can't be asked is no reason to fail
                logger.warning("nothing was brought back to %s: %s", session, error)
        return self._context.prepare(full, tools=tools, session=session)

    def _as_it_came(
        self, full: list[Message], tools: list[dict[str, Any]], own: frozenset[str]
    ) -> Ready:
        budget, tokens = self._settings.budget, rough(full, tools, self._context.counter.text)
        fits = tokens <= budget.limit
        overflow = None if fits else too_long(tokens, budget.window, budget.reserve)
        return Ready(
            full, full, tools, own, tokens, False, tokens, overflow=overflow, degraded=True
        )
