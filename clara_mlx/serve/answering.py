"""The main line of the gateway: what happens to a chat request, from top to bottom.

A caller's form has been read into a `ChatRequest`. Here it is prepared (`Preparer`), asked
(`Router`), its memory calls are answered, and what comes back is written in the caller's form
(`Writer`) into a `Run`, from which clients read.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import aclosing
from functools import partial

from clara_mlx.context import Context
from clara_mlx.context.messages import Message
from clara_mlx.context.rebuild import has_fold
from clara_mlx.context.shown import text_of
from clara_mlx.errors import ClaraError
from clara_mlx.serve import payload, sse
from clara_mlx.serve.answer import Answer
from clara_mlx.serve.apis import APIS, Writer
from clara_mlx.serve.bookkeeping import Bookkeeper
from clara_mlx.serve.desk import Desk
from clara_mlx.serve.errors import ApiError, is_about_roles
from clara_mlx.serve.figures import Figures, PromptParts, prompt_parts
from clara_mlx.serve.memory_calls import MemoryCalls
from clara_mlx.serve.observer import Observer
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.reply import Object, Reply
from clara_mlx.serve.request import call_ids
from clara_mlx.serve.route import By, Router, Switched
from clara_mlx.serve.runs import Run
from clara_mlx.serve.settings import Settings
from clara_mlx.serve.sight import Sights
from clara_mlx.serve.usage import cached_tokens, stated_tokens, states_cached

logger = logging.getLogger(__name__)

# Seconds between two keep-alives that are passed on: a run keeps all that it has sent.
_COMMENT_SECONDS = 0.1


class Answerer:
    """Answers chat requests with the reasoner, the fallback and the memory."""

    def __init__(
        self,
        settings: Settings,
        context: Context,
        router: Router,
        pools: Pools,
        figures: Figures,
        books: Bookkeeper,
    ) -> None:
        self._settings = settings
        self._context = context
        self._router = router
        self._pools = pools
        self._figures = figures
        self._books = books
        self._observer = Observer(pools)
        self._sights = Sights(context, everything=settings.everything)
        self._memory_calls = MemoryCalls(context, pools, figures)

    async def close(self, seconds: float) -> None:
        """Finish remembering the conversations, for at most this long."""
        await self._observer.close(seconds)

    async def answer(self, desk: Desk, run: Run, writer: Writer) -> None:
        """Answer the request whose conversation lies on a desk into a run.

        Raises:
            ApiError: What the client gets instead of the answer, or after a part of it.
        """
        begun = time.perf_counter()
        conversation = self._figures.conversation(desk.name.text)
        conversation.requests += 1
        answer = Answer(desk, run, writer, conversation, begun)
        try:
            self._choose_endpoint(answer)
            reply = await self._ask_until_answered(answer)
        except BaseException as error:
            self._books.close_round(answer, str(error) or "the answer was ended")
            raise
        self._books.close_round(answer)
        await self._keep_answer(answer, reply)
        writer.finish(reply)
        answer.log()
        if self._settings.observe:
            self._observer.remember_soon(desk, answer.hidden)

    # -- before the first round ------------------------------------------------------------------

    def _choose_endpoint(self, answer: Answer) -> None:
        """Switch to the fallback for what the reasoner can't take, or raise why not."""
        reasoner, request = self._settings.reasoner, answer.request
        if request.has_images and not reasoner.images:
            if self._settings.fallback is not None:
                self._router.switch_to_fallback(
                    answer.route, "images", "the messages have parts that are not text"
                )
            # Without one the reasoner is told that there is an image, see `payload`: it is in every
            # request from now on, so that a refusal would end the conversation.
        elif refusal := payload.unsupported_option(request, reasoner):
            raise refusal

    # -- rounds ----------------------------------------------------------------------------------

    async def _ask_until_answered(self, answer: Answer) -> Reply:
        """Ask, and answer memory calls, until there is something for the client."""
        limit = self._settings.rounds
        for number in range(limit + 2):
            answer.must_answer = number > limit  # who only asks its memory has to stop
            self._books.begin_round(answer, self._model(answer, {}), number)
            prompt = await self._compact_and_render(answer, first=number == 0)
            try:
                reply = await self._ask_reasoner(answer, prompt)
            except ApiError as error:
                prompt = await self._undo_what_was_refused(answer, prompt, error)
                reply = await self._ask_reasoner(answer, prompt)
            self._count(answer, prompt, reply)
            if not reply.own_calls:
                break
            self._note_prompt(answer, await self._pools.prepare(partial(self._parts_of, reply)))
            answer.conversation.memory_calls += len(reply.own_calls)
            assert answer.sight is not None
            answered = await self._memory_calls.answer(
                reply.own_calls,
                answer.sight,
                answer.asked,
                text_of(prompt.messages),
                enough=number >= limit,
            )
            self._books.note_asked_back(answer, answered)
            if number <= limit or reply.client_calls:
                answer.hidden += [reply.message(), *answered.results]
                answer.new_results = len(answered.results)
            if reply.client_calls:  # the client answers those; ours wait beside them
                break
        if reply.has_lost_a_call:
            self._figures.broken_calls.inc()
        said = (answer.writer.text, reply.client_calls, reply.reasoning, reply.refusal)
        if not any(said) and (reply.own_calls or reply.has_lost_a_call):
            what = (
                "only asked its memory and gave no answer"
                if reply.own_calls
                else "made a tool call that can't be read"
            )
            # The same request has the same answer, unless it is sampled.
            retry = not answer.request.is_deterministic
            raise ApiError(502, f"the reasoner {what}", code="no_answer", retry=retry)
        return reply

    async def _compact_and_render(self, answer: Answer, *, first: bool) -> Prompt:
        """Prepare the prompt of a round; switch or raise if it can't be made to fit."""
        prompt = await self._prepare(answer, bring_back=first and self._settings.bring_back)
        if first:
            self._figures.seconds.observe(time.perf_counter() - answer.begun)
        if prompt.overflow and answer.withdraw_results():
            prompt = await self._prepare(answer, bring_back=False)
        if prompt.overflow and answer.route.by == "reasoner":
            if self._router.fallback is None or answer.route.committed:
                raise prompt.overflow
            self._router.switch_to_fallback(answer.route, "overflow", str(prompt.overflow))
        if prompt.compacted:
            answer.compacted += prompt.compacted
            self._figures.count_compaction(answer.conversation, prompt.compacted, prompt.reason)
            self._books.note_compaction(answer, prompt)
            logger.info(
                "%s: compacted %d texts (%s)", answer.session, len(prompt.compacted), prompt.reason
            )
        if first:
            expected = self._figures.expected_cached(answer.conversation, prompt.parts)
            answer.describe(prompt, expected)
        return prompt

    async def _prepare(self, answer: Answer, *, bring_back: bool) -> Prompt:
        self._context.keep_in_mind(cache=self._figures.cache.kind)
        offered = bool(answer.conversation.compactions)

        def look_and_prepare() -> Prompt:  # at one go: for small requests the way costs most
            if answer.sight is None:
                answer.desk.look()
                answer.sight = self._sights.of(answer.desk)
            own = answer.sight.own
            return answer.desk.prepare(
                answer.hidden, offered=offered, bring_back=bring_back, among=own
            )

        prompt = await self._pools.prepare(look_and_prepare, distant=answer.desk.is_distant)
        if prompt.degraded:
            self._figures.memory_errors.inc()
        return prompt.without_own_tools() if answer.must_answer else prompt

    async def _ask_reasoner(self, answer: Answer, prompt: Prompt) -> Reply:
        """Ask the reasoner, or the fallback in its place, and write what the client may see."""
        stream = answer.request.stream
        one_call = answer.request.options.get("parallel_tool_calls") is False
        taken = answer.desk.call_ids | call_ids(answer.hidden)
        reply = Reply(prompt.tools.own, one_call, taken)
        commented = -math.inf
        answer.writer.begin_round(prompt)
        pieces = self._router.ask(answer.route, lambda by: self._payload(answer, prompt, by))
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, sse.Comment):
                    if time.monotonic() - commented >= _COMMENT_SECONDS:
                        commented = time.monotonic()
                        api = APIS[answer.request.api]
                        answer.run.send(api.keepalive(piece.text), starts=False)
                elif isinstance(piece, Switched):
                    reply = Reply(prompt.tools.own, one_call, taken)
                else:
                    delta = reply.take_chunk(piece) if stream else reply.take_answer(piece)
                    if delta or not stream:
                        answer.name_who_answers()
                    answer.writer.write(self._model(answer, piece), piece, delta)
                    answer.route.committed = answer.writer.begun
        return reply

    async def _undo_what_was_refused(
        self, answer: Answer, prompt: Prompt, error: ApiError
    ) -> Prompt:
        """The prompt in another form, if it has a fold which the reasoner's template may refuse.

        Raises:
            ApiError: The error itself, if that can't help.
        """
        by_reasoner = answer.route.by == "reasoner" and not answer.route.committed
        if not (by_reasoner and is_about_roles(error) and has_fold(prompt.messages)):
            raise error
        try:
            await self._pools.write(lambda: self._context.undo_session(answer.session))
        except ClaraError:
            raise error from None
        again = await self._prepare(answer, bring_back=False)
        if again.overflow or again.messages == prompt.messages:
            raise error
        logger.warning(
            "%s: the reasoner refused the compacted conversation (%s); it is sent in another form",
            answer.session,
            error,
        )
        return again

    async def _payload(self, answer: Answer, prompt: Prompt, by: By) -> Object:
        """What an endpoint is sent."""
        request, settings = answer.request, self._settings
        if by == "reasoner":
            return payload.for_reasoner(request, prompt, settings, self._context.counter)
        fallback = self._router.fallback
        assert fallback is not None
        messages = prompt.messages
        if answer.route.reason == "overflow":
            # What did not fit the reasoner in any form is not worth sending in its worst one.
            messages = await self._pools.prepare(
                lambda: answer.desk.full(answer.hidden), distant=answer.desk.is_distant
            )
        wants_reasoning = fallback.wants_reasoning
        return payload.for_fallback(
            request, messages, prompt.tools, fallback.remote, wants_reasoning=wants_reasoning
        )

    def _model(self, answer: Answer, piece: Object) -> str:
        """The name under which the client knows the model that answers."""
        if answer.route.by == "reasoner":
            return str(answer.request.echo.get("model", self._settings.name))
        assert self._settings.fallback is not None
        return str(piece.get("model") or self._settings.fallback.model)

    def _count(self, answer: Answer, prompt: Prompt, reply: Reply) -> None:
        """Count the tokens of a round, and what the reasoner's server had cached of it."""
        usage = reply.usage
        conversation = answer.conversation
        sent = stated_tokens(usage, "prompt_tokens") or prompt.tokens
        completion = stated_tokens(usage, "completion_tokens")
        self._figures.count_round(conversation, prompt.tokens_in, sent, completion)
        model = self._model(answer, {})
        self._books.note_answer(answer, prompt, usage, model, self._figures.cache)
        answer.sent = None
        if answer.route.by == "fallback":
            conversation.fallbacks += 1
            return
        cached = cached_tokens(usage)
        stated = cached if states_cached(usage) else None
        self._figures.count_cached(conversation, prompt.parts, stated)
        answer.sent = prompt.parts
        if not answer.request.stream:
            answer.run.headers["x-clara-cached-reported"] = str(cached)

    def _parts_of(self, reply: Reply) -> PromptParts:
        """What a reply will be in the next prompt."""
        return prompt_parts([reply.message()], [], self._context.counter.text)[1:]

    def _note_prompt(self, answer: Answer, said: PromptParts) -> None:
        """Note what the reasoner's server has had by now: what it was sent, and what it said."""
        if answer.sent is not None:
            answer.conversation.prompt = answer.sent + said

    # -- after the last round --------------------------------------------------------------------

    async def _keep_answer(self, answer: Answer, reply: Reply) -> None:
        """Keep what the reasoner knows and the client does not, for the next request."""
        seen: Message = {"role": "assistant", "content": answer.writer.text or reply.refusal}
        rounds = list(answer.hidden)
        if reply.client_calls:
            seen["tool_calls"] = [call.as_history() for call in reply.client_calls]
        if not (reply.client_calls and reply.own_calls):
            final = reply.message()
            if not reply.client_calls:
                final.pop("tool_calls", None)  # those to the memory that were one too many
            rounds.append(final)
        if answer.hidden:
            await self._pools.prepare(
                lambda: answer.desk.keep(seen, rounds), distant=answer.desk.is_distant
            )

        def add() -> PromptParts:
            assert answer.sight is not None
            self._sights.add_answer(answer.sight, seen, rounds, answer.compacted)
            return self._parts_of(reply)

        said = await self._pools.prepare(add)
        if not reply.own_calls:  # if there are, it is noted
            self._note_prompt(answer, said)
