"""``/v1/chat/completions`` and ``/v1/models``."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clara_mlx.serve import sse
from clara_mlx.serve.answering import Answerer
from clara_mlx.serve.bodies import Json, read
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.request import parse
from clara_mlx.serve.runs import Run, Runs
from clara_mlx.serve.settings import Settings

#: The header that names a conversation.
SESSION = "x-clara-session"

_SESSION = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)


class Chat:
    """The ASGI application of ``/v1/chat/completions``."""

    def __init__(self, settings: Settings, answerer: Answerer, runs: Runs) -> None:
        self._settings, self._answerer, self._runs = settings, answerer, runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, alone or together with an identical one."""
        request = Request(scope, receive)
        session = named_session(request)
        asked = await read(request, self._settings.body_seconds, lambda body: parse(body, session))
        retry = request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
        run = self._runs.join(
            asked.key,
            lambda run: self._answerer.answer(asked, session, run),
            always=retry or asked.is_deterministic,
        )
        gone = asyncio.create_task(_disconnected(receive))
        answer = asyncio.create_task(
            (self._streamed if asked.stream else self._whole)(run, scope, receive, send)
        )
        try:
            await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, answer):
                task.cancel()
            self._runs.leave(run)
            with suppress(asyncio.CancelledError):
                await answer

    async def _whole(self, run: Run, scope: Scope, receive: Receive, send: Send) -> None:
        body = b"".join([piece async for piece in run.follow() if piece])
        if run.error:
            await run.error.response(run.headers)(scope, receive, send)
        else:
            response = Response(body, 200, run.headers, "application/json")
            await response(scope, receive, send)

    async def _streamed(self, run: Run, scope: Scope, receive: Receive, send: Send) -> None:
        # An error that comes soon gets its status; later, the stream has begun.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.patience):
                await run.started.wait()
        if run.error and not run.begun:
            await run.error.response(run.headers)(scope, receive, send)
            return
        headers = run.headers | {"cache-control": "no-cache", "x-accel-buffering": "no"}
        start = Response(None, 200, headers, "text/event-stream; charset=utf-8")
        start.raw_headers = [h for h in start.raw_headers if h[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": start.raw_headers})
        async for piece in run.follow(self._settings.keepalive):
            body = sse.comment("keepalive") if piece is None else piece
            await send({"type": "http.response.body", "body": body, "more_body": True})
        if run.error:
            last = sse.event(run.error.body())
            await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Models:
    """``/v1/models``: the reasoner, under the one name that it has here."""

    def __init__(self, settings: Settings) -> None:
        self._model = {
            "id": settings.name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "clara-mlx",
            "max_model_len": settings.budget.window,
        }

    async def every(self, request: Request) -> Response:
        """The list."""
        return Json({"object": "list", "data": [self._model]})

    async def one(self, request: Request) -> Response:
        """One by its name."""
        name = request.path_params["name"]
        if name != self._model["id"]:
            raise ApiError(404, f"there is no model {name}", code="model_not_found", param="model")
        return Json(self._model)


def named_session(request: Request) -> str | None:
    """The conversation's name, if the client gives it one.

    Raises:
        ApiError: it is none that a header can carry back.
    """
    name = request.headers.get(SESSION)
    if name is not None and not _SESSION.fullmatch(name):
        raise ApiError(400, f"{SESSION} must be 1 to 128 letters, digits or any of . : @ / + = - _")
    return name


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
