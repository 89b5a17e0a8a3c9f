"""From a client's conversation to a prompt that fits: hidden rounds, compaction, tools."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from clara_mlx.context import Budget, Context, ContextOverflow
from clara_mlx.context.budget import Exchange
from clara_mlx.context.counting import rough_tokens
from clara_mlx.context.messages import Message, content_text
from clara_mlx.context.recent import Recent
from clara_mlx.context.tools import SCHEMAS
from clara_mlx.errors import ClaraError
from clara_mlx.serve.conversations import Landmark, landmarks
from clara_mlx.serve.errors import Overflow, prompt_too_long
from clara_mlx.serve.figures import PromptParts, prompt_parts
from clara_mlx.serve.reply import Object
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.settings import Settings

logger = logging.getLogger(__name__)

# Characters at the end of the newest message that the memory is asked about: in a long message, the
# end says what it needs.
_QUESTION_CHARACTERS = 1000


@dataclass(frozen=True)
class Tools:
    """The tools of a request."""

    sent: list[Object]  # the client's tools, and ours where they are offered
    own: frozenset[str]  # names of the tools whose calls the gateway answers, offered or not


@dataclass(frozen=True)
class Prompt:
    """What one round sends."""

    messages: list[Message]  # the conversation, compacted as far as necessary
    tools: Tools  # sent with it
    tokens: int  # of the prompt
    exact: bool  # whether ``tokens`` is the reasoner's own count
    tokens_in: int  # that the prompt would have without compaction, about
    compacted: tuple[str, ...] = ()  # handles of the texts that were compacted in this round
    reason: str = ""  # why there was a compaction, or none
    parts: PromptParts = field(default_factory=list, repr=False)  # compared with the next one's
    overflow: Overflow | None = None  # the prompt does not fit the reasoner, however compacted
    degraded: bool = False  # the memory failed, so the conversation is sent as it came
    exchange: Exchange | None = None  # what the compaction gave and cost; None: there was none

    def without_own_tools(self) -> Prompt:
        """The same without the tools whose calls the gateway answers."""
        sent = [tool for tool in self.tools.sent if _name(tool) not in self.tools.own]
        return replace(self, tools=Tools(sent, self.tools.own))


class Preparer:
    """Prepares what is sent. Its methods block: call them in a thread."""

    def __init__(self, settings: Settings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._recent: Recent[list[Landmark]] = Recent()

    def landmarks(self, messages: list[Message], session: str) -> list[Landmark]:
        """What is known of a client's messages without their texts."""
        known = self._recent.look(messages, session)
        before = [one for one in known.found or () if one.place < known.same]
        new = landmarks(messages[known.same :])
        found = before + [Landmark(i + known.same, digest, kind) for i, digest, kind in new]
        self._recent.keep(known, found)
        return found

    def restore_hidden_rounds(self, messages: list[Message], session: str) -> list[list[Message]]:
        """For each of a client's messages, what the reasoner knows in its place."""
        try:
            return self._context.hidden_rounds.by_message(messages, session)
        except ClaraError as error:
            logger.warning(
                "%s: hidden rounds of this conversation could not be read: %s", session, error
            )
            return [[message] for message in messages]

    def keep_hidden_rounds(
        self, messages: list[Message], seen: Message, rounds: list[Message], session: str
    ) -> None:
        """Keep ``rounds``, which take the place of the answer that the client has ``seen``."""
        try:
            self._context.hidden_rounds.keep(messages, seen, rounds, session)
        except ClaraError as error:
            logger.warning(
                "%s: hidden rounds of this conversation could not be kept: %s", session, error
            )

    def compact_and_render(
        self,
        request: ChatRequest,
        conversation: Sequence[Message],
        session: str,
        *,
        offered: bool,
        bring_back: bool,
        among: Collection[str] | None = None,
    ) -> Prompt:
        """The prompt for a conversation, in the smallest form that is necessary.

        Args:
            request: The client's request.
            conversation: Its messages with hidden rounds, those of this answer included.
            session: The conversation's name.
            offered: Whether the memory's tools have been offered in this conversation before.
            bring_back: Whether compacted texts that the newest message needs are brought back.
            among: The handles of those that may be; None: all of the session's.
        """
        full = list(conversation)
        is_question = bring_back and full[-1]["role"] == "user"
        question = content_text(full[-1])[-_QUESTION_CHARACTERS:] if is_question else ""
        budget = self._context.budget.compacting_above(request.compact_above)
        tools = self._choose_tools(request, offered)
        prompt = self._compact(full, tools, session, budget, question, among)
        if prompt.messages != full and not tools.own:
            # Now there is something to ask the memory for.
            tools = self._choose_tools(request, offered=True)
            if tools.own:
                again = self._compact(full, tools, session, budget)
                handles = dict.fromkeys(prompt.compacted + again.compacted)
                reason = again.reason if again.compacted else prompt.reason
                exchange = again.exchange or prompt.exchange
                return replace(again, compacted=tuple(handles), reason=reason, exchange=exchange)
        return prompt

    def _choose_tools(self, request: ChatRequest, offered: bool) -> Tools:
        """The tools to send, sorted so that the beginning of the prompt stays the same."""
        if not self._settings.reasoner.obeys and request.options.get("tool_choice") == "none":
            return Tools([], frozenset())  # the server would ignore "none"
        offers = {"always": True, "never": False, "auto": offered or bool(request.tools)}
        if not offers[self._settings.offer]:
            return Tools(request.tools, frozenset())
        # A tool of the client's that has the name of one of ours is the client's to answer.
        taken = set(map(_name, request.tools))
        ours = [tool for tool in SCHEMAS if _name(tool) not in taken]
        return Tools(sorted([*request.tools, *ours], key=_name), frozenset(map(_name, ours)))

    def _compact(
        self,
        full: list[Message],
        tools: Tools,
        session: str,
        budget: Budget,
        question: str = "",
        among: Collection[str] | None = None,
    ) -> Prompt:
        """The prompt of a conversation with these tools; if the memory fails, as it came."""
        question = question if question.strip() else ""
        try:
            prepared = self._context.prepare(
                full,
                tools=tools.sent,
                session=session,
                question=question,
                among=among,
                budget=budget,
            )
        except ContextOverflow as error:
            return self._as_it_came(full, tools, overflow=self._overflow(error.tokens, tools))
        except ClaraError as error:
            if question:  # what can't be brought back is no reason to fail
                logger.warning("%s: no compacted text was brought back: %s", session, error)
                return self._compact(full, tools, session, budget)
            # For example, the disk is full: the agent can continue without its memory.
            logger.warning(
                "%s: the prompt is sent as it came, because the memory failed: %s", session, error
            )
            return self._as_it_came(full, tools, degraded=True)
        return Prompt(
            messages=prepared.messages,
            tools=tools,
            tokens=prepared.tokens,
            exact=prepared.exact,
            tokens_in=prepared.original_tokens,
            compacted=prepared.compacted,
            reason=prepared.reason,
            exchange=prepared.exchange,
            parts=prompt_parts(prepared.messages, tools.sent, self._context.counter.text),
        )

    def _as_it_came(
        self,
        full: list[Message],
        tools: Tools,
        *,
        overflow: Overflow | None = None,
        degraded: bool = False,
    ) -> Prompt:
        """A prompt without any compaction; it overflows if its estimate does."""
        tokens = rough_tokens(full, tools.sent, self._context.counter.text)
        if overflow is None and tokens > self._settings.budget.limit:
            overflow = self._overflow(tokens, tools)
        return Prompt(
            messages=full,
            tools=tools,
            tokens=tokens,
            exact=False,
            tokens_in=tokens,
            overflow=overflow,
            degraded=degraded,
        )

    def _overflow(self, tokens: int, tools: Tools) -> Overflow:
        of_tools = rough_tokens([], tools.sent, self._context.counter.text) if tools.sent else 0
        budget = self._settings.budget
        return prompt_too_long(tokens, budget.window, budget.reserve, of_tools)


def _name(tool: Object) -> str:
    return str(tool["function"]["name"])
