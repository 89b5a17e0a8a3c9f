"""The gateway as an ASGI application, with everything that belongs to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clara_mlx.context import Context, Counter
from clara_mlx.errors import ClaraError, StorageFailed
from clara_mlx.memory import Memory
from clara_mlx.serve.answering import Answerer
from clara_mlx.serve.bodies import BodyLimit, Json, ReadFirst
from clara_mlx.serve.chat import Chat, Models
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.figures import CONTENT_TYPE, Figures
from clara_mlx.serve.json_errors import JsonErrors
from clara_mlx.serve.mcp_server import create_mcp_server
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.rest import Rest
from clara_mlx.serve.route import Breaker, Router
from clara_mlx.serve.runs import Runs
from clara_mlx.serve.security import Guard
from clara_mlx.serve.server import Server
from clara_mlx.serve.settings import Settings
from clara_mlx.serve.upstream import Endpoint

# Seconds that calls of the memory have to end when the gateway stops, once all answers have ended.
_LAST_SECONDS = 5.0

_MEMORY_ROUTES = ("remember", "recall", "ask", "forget", "original", "status")


def create_server(settings: Settings, memory: Memory, counter: Counter | None = None) -> Server:
    """A server of the gateway; its ``run`` runs it until a signal stops it.

    It then takes no new connections, gives clients that wait for an answer ``settings.drain``
    seconds, and remembers what has not been remembered yet.
    """
    app = create_app(settings, memory, counter)
    return Server(app, settings)


def create_app(settings: Settings, memory: Memory, counter: Counter | None = None) -> Starlette:
    """The application; the caller closes the memory after the application has ended.

    Args:
        settings: The settings of the gateway.
        memory: The memory that the gateway reads from and writes to.
        counter: Counts the reasoner's tokens; without one, they are estimated.
    """
    figures = Figures()
    pools = Pools()
    breaker = Breaker(settings.failures, settings.pause)
    router = Router(
        Endpoint("the reasoner", settings.reasoner),
        Endpoint("the fallback", settings.fallback) if settings.fallback else None,
        breaker,
        lambda reason: figures.fallbacks.labels(reason).inc(),
    )
    context = Context(memory, counter, settings.budget)
    answerer = Answerer(settings, context, router, pools, figures)
    runs = Runs(settings.linger, figures.coalesced.inc)
    models = Models(settings)
    mcp_app = create_mcp_server(memory, pools).streamable_http_app(
        # Nothing is kept between requests, so a client survives a restart of the gateway.
        stateless_http=True,
        json_response=True,
        max_request_body_size=settings.body_limit("/mcp"),
        # The guard below has looked at Host and Origin already.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    def status(session: str | None) -> dict[str, Any]:
        return {
            "gateway": {
                "answers_running": len(runs),
                "breaker": breaker.state,
                "window": settings.budget.window,
                "tokens_exact": context.counter.exact,
            },
            "conversations": figures.newest(session),
        }

    async def metrics(request: Request) -> Response:
        figures.running.set(len(runs))
        figures.breaker.set(breaker.state == "open")
        figures.pending.set(await pools.ask(memory.backlog))
        return Response(figures.page(), media_type=CONTENT_TYPE)

    async def health(request: Request) -> Response:
        return Json({"status": "ok"})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with mcp_app.router.lifespan_context(mcp_app):
            yield
        await runs.close(settings.drain)
        await answerer.close(settings.drain)
        await router.close()
        app.state.has_ended = await asyncio.to_thread(pools.close, _LAST_SECONDS)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", Chat(settings, answerer, runs), methods=["POST"]),
            Route("/v1/models", models.list, methods=["GET"]),
            Route("/v1/models/{name:path}", models.get, methods=["GET"]),
            *Rest(memory, pools, settings.body_seconds, status).routes(),
            *_with_bodies_read_first(mcp_app.routes, settings.body_seconds),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
        ],
        middleware=[
            Middleware(BodyLimit, limit=settings.body_limit),
            Middleware(_RequestCounter, figures=figures),
            Middleware(Guard, settings=settings),
            Middleware(JsonErrors),
        ],
        exception_handlers=dict.fromkeys(
            (ApiError, ClaraError, HTTPException, Exception), error_response
        ),
        lifespan=lifespan,
    )
    # For the server, which ends the runs when it is stopped, and says whether all work has ended.
    app.state.runs = runs
    app.state.has_ended = True
    return app


async def error_response(request: Request, error: Exception) -> Response:
    """Any error in OpenAI's shape."""
    if isinstance(error, ApiError):
        return error.response()
    if isinstance(error, StorageFailed):
        return ApiError(503, str(error), code="memory_failed", retry=error.transient).response()
    if isinstance(error, ClaraError):  # the memory refuses what the client asked for
        return ApiError(400, str(error), code="memory_error").response()
    if isinstance(error, HTTPException):
        answer = ApiError(error.status_code, error.detail).response()
        answer.headers.update(error.headers or {})
        return answer
    return ApiError(500, "the gateway failed; its log says why", code="internal_error").response()


def _with_bodies_read_first(routes: list[BaseRoute], seconds: float) -> list[Route]:
    return [Route(r.path, ReadFirst(r.app, seconds)) for r in routes if isinstance(r, Route)]


class _RequestCounter:
    """ASGI middleware that counts requests by route and status."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = str(message["status"])
                self._figures.requests.labels(_route(scope["path"]), status).inc()
            await send(message)

        await self.app(scope, receive, send_and_count)


def _route(path: str) -> str:
    """The label for a path: one of a few, whatever clients ask for."""
    if path in ("/v1/chat/completions", "/v1/models", "/mcp", "/metrics", "/health"):
        return path
    for name in _MEMORY_ROUTES:
        if path.startswith(f"/v1/memory/{name}"):
            return f"/v1/memory/{name}"
    return "other"
