"""JSON in and out: requests of limited size that arrive in time, answers that can be sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from clara_mlx.serve.errors import ApiError

T = TypeVar("T")

# Bodies above this are read in a thread: the event loop has other requests to serve.
_LARGE = 1 << 18


class Json(Response):
    """A JSON answer; remembered bytes that aren't UTF-8 stay escaped."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, default=str).encode()


async def read(request: Request, seconds: float, form: Callable[[dict[str, Any]], T]) -> T:
    """What ``form`` makes of a request's JSON object.

    Its size is limited by `security.Bodies`.

    Raises:
        ApiError: it is no JSON object in UTF-8, or took longer than ``seconds``.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A page of another site can send other types without asking first.
        raise ApiError(415, "send JSON, with Content-Type: application/json")
    try:
        async with asyncio.timeout(seconds):
            content = await request.body()
    except TimeoutError:
        raise ApiError(408, f"the request's body took longer than {seconds:g} seconds") from None
    except ClientDisconnect:
        raise ApiError(400, "the client left before its request was whole") from None
    if len(content) > _LARGE:
        return await asyncio.to_thread(lambda: form(parsed_object(content)))
    return form(parsed_object(content))


def parsed_object(content: bytes) -> dict[str, Any]:
    """A JSON object from bytes.

    Raises:
        ApiError: it is none; NaN and Infinity are no JSON.
    """
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the request is not UTF-8: byte {error.start}") from None
    except RecursionError:
        raise ApiError(400, "the request's JSON is nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, f"the request is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the request must be a JSON object")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
