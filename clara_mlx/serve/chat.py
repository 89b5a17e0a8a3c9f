"""``/v1/chat/completions`` and ``/v1/models`` over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from clara_mlx.serve import sse
from clara_mlx.serve.answering import Answerer
from clara_mlx.serve.bodies import Json
from clara_mlx.serve.chat_form import Writer
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.reception import Reception
from clara_mlx.serve.runs import Run, Runs
from clara_mlx.serve.settings import Settings


class Chat:
    """The ASGI application of ``/v1/chat/completions``."""

    def __init__(
        self, settings: Settings, reception: Reception, answerer: Answerer, runs: Runs
    ) -> None:
        self._settings = settings
        self._reception = reception
        self._answerer = answerer
        self._runs = runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, alone or together with an identical one."""
        http = Request(scope, receive)
        desk = await self._reception.receive(http)
        request = desk.request
        is_retry = http.headers.get("x-stainless-retry-count", "0") not in ("", "0")
        run = self._runs.join(
            request.key,
            lambda run: self._answerer.answer(desk, run, Writer(request, run)),
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
            response: Response = run.error.response(run.headers)
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
            await run.error.response(run.headers)(scope, receive, send)
            return
        headers = run.headers | {"cache-control": "no-cache", "x-accel-buffering": "no"}
        response = StreamingResponse(self._events(run), 200, headers, "text/event-stream")
        await response(scope, receive, send)

    async def _events(self, run: Run) -> AsyncIterator[bytes]:
        async for piece in run.follow(self._settings.keepalive):
            yield sse.encode_comment("keepalive") if piece is None else piece
        if run.error:
            yield sse.encode_event(run.error.body())


class Models:
    """``/v1/models``: the reasoner, under the one name that clients know."""

    def __init__(self, settings: Settings) -> None:
        self._model = {
            "id": settings.name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "clara-mlx",
            "max_model_len": settings.budget.window,
        }

    async def list(self, request: Request) -> Response:
        """The list of the one model."""
        return Json({"object": "list", "data": [self._model]})

    async def get(self, request: Request) -> Response:
        """A model by its name."""
        name = request.path_params["name"]
        if name != self._model["id"]:
            raise ApiError(
                404,
                f"there is no model {name!r}; the only one is {self._model['id']!r}",
                code="model_not_found",
                param="model",
            )
        return Json(self._model)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
