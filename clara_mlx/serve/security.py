"""Who may speak to the gateway, and for how long: host, origin, token, endless requests."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.settings import Settings, is_loopback

# Answered without a token: they say nothing but that the gateway is there.
_OPEN = frozenset(("/health",))

# What is still read of a request that was answered early, so that its client sees the answer.
_DRAIN_BYTES, _DRAIN_SECONDS = 64 << 20, 1.0


class Guard:
    """ASGI middleware: refuses requests that a foreign page or an unknown client makes.

    A page of another site can make a browser send requests here, and by DNS rebinding read the
    answers. So a request must be addressed to a known name (the Host header), and if it comes from
    a page (the Origin header), that page must be of such a name, too. No CORS header is ever sent.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._names = {name.lower() for name in (settings.host, *settings.allow_hosts)}
        # A wildcard address has any name; there the token, which is required, has to do.
        self._any_name = settings.host in ("0.0.0.0", "::") and not settings.allow_hosts
        self._token = settings.token.encode() if settings.token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with the reason why not."""
        if scope["type"] == "http":
            refused = self._refused(scope["path"], Headers(scope=scope))
            if refused:
                await refused.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refused(self, path: str, headers: Headers) -> ApiError | None:
        host = _name(f"//{headers.get('host', '')}")
        if not self._known(host) and not (self._any_name and host):
            return ApiError(
                421, f"this is no server for {host or 'a request without Host'}", code="wrong_host"
            )
        origin = headers.get("origin")
        if origin is not None and not self._known(_name(origin)):
            return ApiError(403, f"pages of {origin[:200]} may not use this server", code="origin")
        if self._token and path not in _OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            offered = given.strip().encode("utf-8", "surrogateescape")
            if scheme.lower() != "bearer" or not hmac.compare_digest(offered, self._token):
                return ApiError(401, "a bearer token is needed", code="invalid_api_key")
        return None

    def _known(self, name: str | None) -> bool:
        return bool(name) and (is_loopback(name or "") or name in self._names)


def _name(url: str) -> str | None:
    """The host's name in a URL, lower case, without port; None if it has none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class Bodies:
    """ASGI middleware: requests have a most size, and an early answer ends those that go on.

    uvicorn would read and drop the rest of a request for as long as it comes.

    Args:
        app: the application.
        most: bytes of the largest request; what is larger is a 413 where it is read.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and see how much of it is read."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        expected = int(length) if length.isdecimal() and len(length) < 20 else 0
        whole = "transfer-encoding" not in headers and expected == 0
        size = 0

        async def read() -> Message:
            nonlocal whole, size
            message = await receive()
            size += len(message.get("body", b""))
            whole = whole or not message.get("more_body", False)
            return message

        async def read_some() -> Message:
            if expected <= self._most:
                message = await read()
                if size <= self._most:
                    return message
            raise ApiError(413, f"the request is larger than {self._most} bytes", code="too_large")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not whole:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_SECONDS):
                        while not whole and size < _DRAIN_BYTES:
                            await read()
                if not whole:
                    more = [(b"connection", b"close")]
                    message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await self.app(scope, read_some, answer)
