"""An answer: rounds with the reasoner until there is something for the client."""

from __future__ import annotations

import json
import logging
import time
from contextlib import aclosing
from typing import Any

from clara_mlx.context import Context
from clara_mlx.context.messages import Message
from clara_mlx.context.view import session_of
from clara_mlx.errors import ClaraError
from clara_mlx.serve import output, payload, sse
from clara_mlx.serve.calls import MemoryCalls, shortened
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.figures import Conversations, prompt_of
from clara_mlx.serve.job import Job
from clara_mlx.serve.metrics import Metrics
from clara_mlx.serve.observer import Observer
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.preparing import Preparer, Ready
from clara_mlx.serve.reply import Assembly, Object
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.route import By, Router, Switched
from clara_mlx.serve.runs import Run
from clara_mlx.serve.settings import Settings

logger = logging.getLogger(__name__)


class Answerer:
    """Answers chat requests, with everything that the gateway has for it."""

    def __init__(
        self,
        settings: Settings,
        context: Context,
        router: Router,
        pools: Pools,
        metrics: Metrics,
        conversations: Conversations,
    ) -> None:
        self._settings, self._context, self._router = settings, context, router
        self._pools, self._metrics, self._conversations = pools, metrics, conversations
        self._preparer = Preparer(settings, context)
        self.observer = Observer(context, pools)
        self._calls = MemoryCalls(context.memory, pools, metrics, everything=settings.everything)
        self._late_system: bool | None = None

    async def answer(self, request: ChatRequest, session: str | None, run: Run) -> None:
        """Answer a request into a run.

        Raises:
            ApiError: what the client gets instead, or after what it got.
        """
        begun = time.perf_counter()
        name = session or session_of(request.messages)
        base = await self._pools.prepare(lambda: self._preparer.restored(request, name))
        job = Job(request, name, run, self._conversations.of(name), base, begun)
        job.conversation.requests += 1
        self._choose(job)
        said = await self._rounds(job)
        await self._keep(job, said)
        if request.stream:
            for piece in output.stream_end(job.id, self._model(job), job.upstream, said, request):
                run.send(piece)
        else:
            whole = output.completion(job.id, self._model(job), job.upstream, said, job.seen)
            run.send(json.dumps(whole).encode())
        self._log(job)
        if self._settings.observe:
            self.observer.see(name, [*base, *job.hidden])

    # -- rounds ----------------------------------------------------------------------------------

    def _choose(self, job: Job) -> None:
        """Send what the reasoner can't take elsewhere, or say so."""
        reasoner, request = self._settings.reasoner, job.request
        if request.has_images and not reasoner.images:
            if self._settings.fallback is None:
                raise ApiError(
                    400,
                    "the reasoner reads text only, and there is no fallback that reads images",
                    param="messages",
                    code="unsupported_content",
                )
            self._router.switch(job.route, "images", "the messages have parts that are not text")
        elif refusal := payload.refused(request, reasoner):
            raise refusal

    async def _rounds(self, job: Job) -> Assembly:
        limit = self._settings.rounds
        for number in range(limit + 2):
            ready = await self._ready(job, first=number == 0)
            said = await self._said(job, ready)
            self._count(job, ready, said)
            if not said.own_calls:
                break
            job.conversation.memory_calls += len(said.own_calls)
            results = await self._calls.results(job, said.own_calls, enough=number >= limit)
            if number <= limit or said.client_calls:
                job.hidden += [said.message(), *results]
                job.results = len(results)
            if said.client_calls:  # the client answers those; ours wait beside them
                break
        if said.lost_a_call:
            self._metrics.broken_calls.inc()
        if not (job.seen or said.client_calls or said.reasoning) and (
            said.own_calls or said.lost_a_call
        ):
            what = "asked its memory only" if said.own_calls else "made a call that is unreadable"
            # The same request has the same answer, unless it is sampled.
            retry = not job.request.is_deterministic
            raise ApiError(502, f"the reasoner {what}", code="no_answer", retry=retry)
        return said

    async def _ready(self, job: Job, *, first: bool) -> Ready:
        offer = bool(job.conversation.compactions)
        ready = await self._pools.prepare(
            lambda: self._preparer.ready(
                job.request,
                [*job.base, *job.hidden],
                job.session,
                offer=offer,
                ask=first and self._settings.bring_back,
            )
        )
        if self._late_system is None:
            counter = self._context.counter
            self._late_system = await self._pools.prepare(
                lambda: payload.takes_late_system(counter)
            )
        if first:
            self._metrics.seconds.observe(time.perf_counter() - job.begun)
        if ready.degraded:
            self._metrics.memory_errors.inc()
        if ready.overflow and shortened(job):
            return await self._ready(job, first=False)
        if ready.overflow and job.route.by == "reasoner":
            if self._router.fallback is None or job.route.committed:
                raise ready.overflow
            self._router.switch(job.route, "overflow", str(ready.overflow))
        if ready.compacted:
            self._metrics.compactions.inc()
            job.conversation.compacted_more(ready.compacted, ready.reason)
            logger.info("%s: %s, %d texts", job.session, ready.reason, len(ready.compacted))
        if first:
            job.run.headers |= self._headers(job, ready)
        return ready

    async def _said(self, job: Job, ready: Ready) -> Assembly:
        def fill(by: By) -> Object:
            if by == "reasoner":
                return payload.for_reasoner(
                    job.request,
                    ready.messages,
                    ready.tools,
                    self._settings.reasoner,
                    self._settings.budget,
                    ready.tokens,
                    late_system=self._late_system is not False,
                )
            assert self._settings.fallback is not None
            # What did not fit the reasoner in any form is not worth sending in its worst one.
            messages = ready.full if job.route.reason == "overflow" else ready.messages
            return payload.for_fallback(job.request, messages, ready.tools, self._settings.fallback)

        one_call = job.request.options.get("parallel_tool_calls") is False
        if job.request.stream:
            return await self._streamed(job, fill, ready.own, one_call)
        answer = await self._router.complete(job.route, fill)
        choice = answer["choices"][0]
        said = Assembly(ready.own, one_call)
        said.whole(choice["message"], choice.get("finish_reason"), answer.get("usage"))
        job.upstream = answer
        job.seen = output.joined(job.seen, said.content)
        self._tell(job)
        return said

    async def _streamed(self, job: Job, fill: Any, own: frozenset[str], one_call: bool) -> Assembly:
        said = Assembly(own, one_call)
        async with aclosing(self._router.stream(job.route, fill)) as events:
            async for event in events:
                if isinstance(event, sse.Comment):
                    job.run.send(sse.comment(event.text), starts=False)
                    continue
                if isinstance(event, Switched):
                    said = Assembly(own, one_call)
                    continue
                gap = output.joined(job.seen, "x")[len(job.seen) : -1] if not said.content else ""
                delta = said.feed(event)
                job.upstream = {k: v for k, v in event.items() if k not in ("choices", "usage")}
                if delta is None:
                    continue
                if "content" in delta:
                    delta["content"] = gap + delta["content"]
                    job.seen += delta["content"]
                if not job.route.committed:
                    delta = {"role": "assistant", **delta}
                job.route.committed = True
                self._tell(job)
                named = output.named_logprobs(_first(event))
                model = self._model(job)
                job.run.send(output.chunk(job.id, model, job.upstream, delta, logprobs=named))
        return said

    # -- afterwards ------------------------------------------------------------------------------

    async def _keep(self, job: Job, said: Assembly) -> None:
        """Keep the hidden rounds, so that the reasoner knows them in the next request."""
        if not job.hidden:
            return
        seen: Message = {"role": "assistant", "content": job.seen}
        rounds = list(job.hidden)
        if said.client_calls:
            seen["tool_calls"] = [call.written() for call in said.client_calls]
        if not (said.client_calls and said.own_calls):
            final = said.message()
            if not said.client_calls:
                final.pop("tool_calls", None)  # those to the memory that were one too many
            rounds.append(final)
        request, session = job.request, job.session
        try:
            await self._pools.prepare(
                lambda: self._preparer.replay.keep(request.messages, seen, rounds, session)
            )
        except ClaraError as error:
            logger.warning("the hidden rounds of %s could not be kept: %s", session, error)

    def _count(self, job: Job, ready: Ready, said: Assembly) -> None:
        usage, kept = said.usage or {}, job.conversation
        sent = _number(usage.get("prompt_tokens")) or ready.tokens
        made = _number(usage.get("completion_tokens"))
        kept.rounds += 1
        kept.tokens_in += ready.tokens_in
        kept.tokens_sent += sent
        kept.peak_in, kept.peak_sent = max(kept.peak_in, ready.tokens_in), max(kept.peak_sent, sent)
        kept.completion_tokens += made
        tokens = self._metrics.tokens
        tokens.labels("in").inc(ready.tokens_in)
        tokens.labels("sent").inc(sent)
        self._metrics.completion_tokens.inc(made)
        if job.route.by == "fallback":
            kept.fallbacks += 1
            return
        expected, reported = kept.common(ready.prompt), _cached(usage)
        kept.cached_expected += expected
        kept.cached_reported += reported
        tokens.labels("cached_expected").inc(expected)
        tokens.labels("cached_reported").inc(reported)
        count = self._context.counter.text
        kept.prompt = ready.prompt + prompt_of([said.message()], [], count)[1:]
        if not job.request.stream:
            job.run.headers["x-clara-cached-reported"] = str(reported)

    def _headers(self, job: Job, ready: Ready) -> dict[str, str]:
        return {
            "x-clara-session": job.session,
            "x-clara-tokens-in": str(ready.tokens_in),
            "x-clara-tokens-sent": str(ready.tokens),
            "x-clara-tokens-exact": str(ready.exact).lower(),
            "x-clara-cached-expected": str(job.conversation.common(ready.prompt)),
            "x-clara-compacted": str(len(ready.compacted)),
            "x-clara-memory": "unavailable" if ready.degraded else "ok",
        }

    def _log(self, job: Job) -> None:
        kept = job.conversation
        logger.info(
            "%s: %s answered in %.1f s; tokens so far: %d in, %d sent, %d of these cached (%d "
            "expected)",
            job.session,
            job.route.by,
            time.perf_counter() - job.begun,
            kept.tokens_in,
            kept.tokens_sent,
            kept.cached_reported,
            kept.cached_expected,
        )

    def _tell(self, job: Job) -> None:
        """Say in the headers who answers."""
        job.run.headers["x-clara-served-by"] = job.route.by
        if job.route.reason:
            job.run.headers["x-clara-fallback-reason"] = job.route.reason

    def _model(self, job: Job) -> str:
        if job.route.by == "reasoner":
            return self._settings.name
        assert self._settings.fallback is not None
        return str(job.upstream.get("model") or self._settings.fallback.model)


def _first(chunk: Object) -> Object:
    return next((c for c in chunk.get("choices") or [] if c.get("index", 0) == 0), {})


def _cached(usage: Object) -> int:
    details = usage.get("prompt_tokens_details")
    return _number(details.get("cached_tokens")) if isinstance(details, dict) else 0


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
