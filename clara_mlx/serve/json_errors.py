"""Errors that a part of the application answers as text, in the shape of the API's errors."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clara_mlx.serve.apis import error_response
from clara_mlx.serve.errors import ApiError

# Characters of such a text that are passed on.
_MOST = 500

# Headers that belong to the text, not to what takes its place.
_OF_THE_TEXT = frozenset((b"content-type", b"content-length"))


class JsonErrors:
    """ASGI middleware; the MCP SDK answers what is no MCP request as plain text.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and put an error in place of one that is not JSON."""
        start: Message | None = None
        text = b""

        async def send_json(message: Message) -> None:
            nonlocal start, text
            if message["type"] == "http.response.start" and _is_plain_error(message):
                start = message
            elif start is None:
                await send(message)
            else:
                text = (text + message.get("body", b""))[: 4 * _MOST]
                if not message.get("more_body", False):
                    await _error(start, text, scope["path"])(scope, receive, send)

        await self.app(scope, receive, send_json if scope["type"] == "http" else send)


def _is_plain_error(start: Message) -> bool:
    kind = Headers(raw=list(start.get("headers", []))).get("content-type", "")
    # A page of the inspector says what is wrong to people.
    return start["status"] >= 400 and not kind.startswith(("application/json", "text/html"))


def _error(start: Message, text: bytes, path: str) -> ASGIApp:
    status = start["status"]
    said = text.decode("utf-8", "replace").strip()[:_MOST] or HTTPStatus(status).phrase
    answer = error_response(ApiError(status, said), path)
    answer.raw_headers += [
        (name, value) for name, value in start.get("headers", []) if name not in _OF_THE_TEXT
    ]
    return answer
