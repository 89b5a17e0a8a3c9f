"""JSON in and out: requests of limited size that arrive in time, answers that can be sent."""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clara_mlx.serve.codings import decode
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.json_values import BadJson, TooMuchJson, check_size, read_value

T = TypeVar("T")

# Bytes; larger bodies are parsed in a thread, so that the event loop can serve other requests.
_LARGE = 1 << 18

# One after the other: the parser lets nothing else run, and several would do so for longer.
_parsing = ThreadPoolExecutor(1, "clara-mlx parse")

# Where a request's scope has the bytes that its body may have.
_LIMIT = "clara_mlx.body_limit"

# A request that was answered early is still read up to this many bytes, so that its client sees the
# answer.
_DRAIN_BYTES = 64 << 20

# It is read for no more seconds than this.
_DRAIN_SECONDS = 1.0


class Json(Response):
    """A JSON response; remembered bytes that aren't UTF-8 stay escaped."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, default=str).encode()


async def read_json(request: Request, seconds: float, parse: Callable[[dict[str, Any]], T]) -> T:
    """Read a request's JSON object and return what ``parse`` makes of it.

    `BodyLimit` limits its size.

    Raises:
        ApiError: The body is not a JSON object in UTF-8, or took longer than ``seconds``.
    """
    content = await read_content(request, seconds)
    return await parse_content(content, lambda: parse(parse_object(content)))


async def read_content(request: Request, seconds: float) -> bytes:
    """The bytes of a request that says it is JSON.

    Raises:
        ApiError: It says something else, or took longer than ``seconds``.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A page of another site can send other types without asking first.
        raise ApiError(415, "send JSON, with Content-Type: application/json")
    return await _read_body(request, seconds)


async def _read_body(request: Request, seconds: float) -> bytes:
    """A body without what was done to it on its way: a coding, a mark of the byte order."""
    coding = ",".join(request.headers.getlist("content-encoding"))
    try:
        async with asyncio.timeout(seconds):
            content = await request.body()
    except TimeoutError:
        raise ApiError(408, f"the request's body took longer than {seconds:g} seconds") from None
    except ClientDisconnect:
        raise ApiError(400, "the client left before its request was complete") from None
    if coding:
        limit = request.scope[_LIMIT]
        decoding = partial(decode, content, coding, limit)
        content = await asyncio.get_running_loop().run_in_executor(_parsing, decoding)
    return content.removeprefix(codecs.BOM_UTF8)


async def parse_content(content: bytes, work: Callable[[], T]) -> T:
    """Run what parses a body, in a thread if it may take long."""
    if len(content) <= _LARGE:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_parsing, work)


def parse_object(content: bytes) -> dict[str, Any]:
    """A JSON object from bytes.

    Raises:
        ApiError: The bytes are not a JSON object, or one of too many values or levels.
    """
    try:
        value = read_value(content)
    except BadJson as error:
        raise _as_api_error(error) from None
    if not isinstance(value, dict):
        raise ApiError(400, "the request must be a JSON object")
    return value


def _as_api_error(error: BadJson) -> ApiError:
    if isinstance(error, TooMuchJson):
        return ApiError(413, f"the request {error}", code="too_large")
    return ApiError(400, f"the request {error}")


class ReadFirst:
    """ASGI middleware for an application that parses JSON by itself.

    It gets a request when all of it has arrived in time, and its JSON has not too many values.

    Args:
        app: The application.
        seconds: The most that the body of a request may take to arrive.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request, and pass it on in one piece."""
        content = await _read_body(Request(scope, receive), self._seconds)
        try:
            await parse_content(content, lambda: check_size(content))
        except BadJson as error:
            raise _as_api_error(error) from None
        waiting: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive_again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, receive_again, send)


class BodyLimit:
    """ASGI middleware: limits the size of requests, and ends those that continue once answered.

    uvicorn would read and drop the rest of a request for as long as it keeps arriving.

    Args:
        app: The application.
        limit: The bytes of the largest request to a path; reading a larger one raises a 413.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[str], int]) -> None:
        self.app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count what is read of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        scope[_LIMIT] = limit
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        expected = int(length) if length.isdecimal() and len(length) < 20 else 0
        complete = "transfer-encoding" not in headers and expected == 0
        size = 0

        async def read() -> Message:
            nonlocal complete, size
            message = await receive()
            size += len(message.get("body", b""))
            complete = complete or not message.get("more_body", False)
            return message

        async def read_within_limit() -> Message:
            if expected <= limit:
                message = await read()
                if size <= limit:
                    return message
            raise ApiError(413, f"the request is larger than {limit} bytes", code="too_large")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not complete:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_SECONDS):
                        while not complete and size < _DRAIN_BYTES:
                            await read()
                if not complete:
                    more = [(b"connection", b"close")]
                    message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await self.app(scope, read_within_limit, answer)
