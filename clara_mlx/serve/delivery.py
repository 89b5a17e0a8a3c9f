"""Requests for an answer over HTTP: received, joined with identical ones, delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from clara_mlx.serve.answering import Answerer
from clara_mlx.serve.apis import Api
from clara_mlx.serve.compacting import Compactor
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.reception import Reception
from clara_mlx.serve.runs import Run, Runs
from clara_mlx.serve.settings import Settings


class Delivery:
    """The ASGI application that answers the requests of one API."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        reception: Reception,
        answerer: Answerer,
        compactor: Compactor,
        runs: Runs,
    ) -> None:
        self._api = api
        self._settings = settings
        self._reception = reception
        self._answerer = answerer
        self._compactor = compactor
        self._runs = runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, alone or together with an identical one."""
        http = Request(scope, receive)
        desk = await self._reception.receive(http, self._api)
        request = desk.request
        is_retry = http.headers.get("x-stainless-retry-count", "0") not in ("", "0")
        work = self._compactor.compact if request.compaction_only else self._answerer.answer
        run = self._runs.join(
            request.key,
            lambda run: work(desk, run, self._api.writer(request, run)),
            always=is_retry or request.is_deterministic,
        )
        gone = asyncio.create_task(_wait_for_disconnect(receive))
        deliver = self._deliver_stream if request.stream else self._deliver_whole
        delivery = asyncio.create_task(deliver(run, scope, receive, send))
        try:
            await asyncio.wait({gone, delivery}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, delivery):
                task.cancel()
            self._runs.leave(run)
            with suppress(asyncio.CancelledError):
                await delivery

    async def _deliver_whole(self, run: Run, scope: Scope, receive: Receive, send: Send) -> None:
        body = b"".join([piece async for piece in run.follow() if piece])
        if run.error:
            response = self._error_response(run.error, run)
        else:
            response = Response(body, 200, run.headers, "application/json")
        await response(scope, receive, send)

    async def _deliver_stream(self, run: Run, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces of a run as they come, and a comment when it is silent for long."""
        # An error that comes soon gets its own status; later, the stream has begun.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.patience):
                await run.started.wait()
        if run.error and not run.begun:
            await self._error_response(run.error, run)(scope, receive, send)
            return
        headers = run.headers | {"cache-control": "no-cache", "x-accel-buffering": "no"}
        response = StreamingResponse(self._events(run), 200, headers, "text/event-stream")
        await response(scope, receive, send)

    async def _events(self, run: Run) -> AsyncIterator[bytes]:
        async for piece in run.follow(self._settings.keepalive):
            is_part = piece is not None and run.begun
            yield self._api.keepalive("keepalive") if piece is None else piece
            run.shown = run.shown or is_part
        if run.error:
            yield (run.error_event or self._api.error_event)(run.error)

    def _error_response(self, error: ApiError, run: Run) -> Response:
        return error.response(run.headers, self._api.error_body(error))


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
