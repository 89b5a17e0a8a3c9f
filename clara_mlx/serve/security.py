"""Who may speak to the gateway: the host, the origin and the token of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from clara_mlx.serve.apis import error_response
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.inspector.entry import Entry, is_open, is_page
from clara_mlx.serve.settings import DEFAULT, is_loopback

#: Where the guard writes down which namespace a request's token opens.
NAMESPACE = "clara_mlx.namespace"

# Paths that need no token: they say nothing but that the gateway is running.
_OPEN = frozenset(("/health",))


class Doors(Protocol):
    """What the guard needs to know of the settings."""

    @property
    def host(self) -> str:
        """The address that is listened on."""

    @property
    def allow_hosts(self) -> tuple[str, ...]:
        """Names, besides loopback's, that requests may be sent to."""

    @property
    def tokens(self) -> Mapping[str, str]:
        """The tokens by namespace; empty if clients need none."""


class Guard:
    """ASGI middleware: refuses requests from foreign pages and unknown clients.

    A page of another site can make a browser send requests here, and by DNS rebinding read the
    answers. So a request must be addressed to a known name (the Host header), and if it comes from
    a page (the Origin header), that page must be of such a name, too. No CORS header is ever sent.

    The token says which namespace a request may use; the scope's `NAMESPACE` passes it on. For the
    inspector's pages, and for nothing else, a cookie stands for the token.
    """

    def __init__(self, app: ASGIApp, settings: Doors, entry: Entry) -> None:
        self.app = app
        self._entry = entry
        self._names = {name.lower() for name in (settings.host, *settings.allow_hosts)}
        # A wildcard address has any name; there the token, which is required, has to do.
        self._any_name = settings.host in ("0.0.0.0", "::") and not settings.allow_hosts
        self._needs_token = bool(settings.tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with the reason why not."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if "content-length" in headers and "transfer-encoding" in headers:
                # What follows may be a second request, or a part of this one: see RFC 9112, 6.1.
                unclear = ApiError(400, "a request has a Content-Length or Transfer-Encoding")
                close = {"connection": "close"}
                await error_response(unclear, scope["path"], close)(scope, receive, send)
                return
            refusal = self._refusal(headers)
            namespace = self._namespace(headers, scope["path"])
            path = scope["path"]
            if not refusal and self._needs_token and is_page(path) and not is_open(path):
                request = Request(scope)
                # A browser's address may bring a token; a program's request is told what it needs.
                if "token" in request.query_params or (namespace is None and _reads_pages(headers)):
                    await self._entry.admit(request)(scope, receive, send)
                    return
            is_free = path in _OPEN or is_open(path)
            if not refusal and namespace is None and not is_free:
                refusal = ApiError(
                    401,
                    "send this server's token: Authorization: Bearer TOKEN, or x-api-key: TOKEN",
                    code="invalid_api_key",
                )
            if refusal:
                await error_response(refusal, scope["path"])(scope, receive, send)
                return
            scope[NAMESPACE] = namespace
        await self.app(scope, receive, send)

    def _refusal(self, headers: Headers) -> ApiError | None:
        """Why a request is refused; None if it is not."""
        host = _host_name(f"//{headers.get('host', '')}")
        if not self._is_known(host) and not (self._any_name and host):
            return ApiError(
                421,
                f"this server does not answer for {host or 'a request without a Host header'}",
                code="wrong_host",
            )
        origin = headers.get("origin")
        if origin == "null" and headers.get("sec-fetch-site") == "same-origin":
            return None  # a form of a page of ours, which says no more of where it was
        if origin is not None and not self._is_known(_host_name(origin)):
            return ApiError(
                403, f"web pages from {origin[:200]} may not use this server", code="origin"
            )
        return None

    def _namespace(self, headers: Headers, path: str) -> str | None:
        """The namespace that a request's token opens; None if it opens none."""
        if not self._needs_token:
            return DEFAULT
        scheme, _, given = headers.get("authorization", "").partition(" ")
        bearer = given if scheme.lower() == "bearer" else ""
        for offered in (bearer, headers.get("x-api-key", "")):
            if (opened := self._entry.opened_by(offered)) is not None:
                return opened
        return self._entry.namespace_of(headers) if is_page(path) else None

    def _is_known(self, name: str | None) -> bool:
        return bool(name) and (is_loopback(name or "") or name in self._names)


def _host_name(url: str) -> str | None:
    """The host's name in a URL, in lower case and without the port; None if it has none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _reads_pages(headers: Headers) -> bool:
    """Whether a client shows pages to people."""
    return "text/html" in headers.get("accept", "")
