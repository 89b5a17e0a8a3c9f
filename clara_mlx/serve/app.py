"""The gateway as an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clara_mlx.context import Context, Counter
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.serve import mcp_server, metrics
from clara_mlx.serve.answering import Answerer
from clara_mlx.serve.bodies import Json
from clara_mlx.serve.chat import Chat, Models
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.figures import Conversations
from clara_mlx.serve.metrics import Metrics
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.rest import Rest, refused
from clara_mlx.serve.route import Breaker, Router
from clara_mlx.serve.runs import Runs
from clara_mlx.serve.security import Bodies, Guard
from clara_mlx.serve.settings import Settings
from clara_mlx.serve.upstream import Endpoint

logger = logging.getLogger(__name__)


def create(settings: Settings, memory: Memory, counter: Counter | None = None) -> Starlette:
    """The application; the memory stays the caller's to close, after the application has ended.

    Args:
        settings: see there.
        memory: of which the gateway gives and which it fills.
        counter: counts the reasoner's tokens; an estimate without one.
    """
    figures, pools, conversations = Metrics(), Pools(), Conversations()
    breaker = Breaker(settings.failures, settings.pause)
    router = Router(
        Endpoint("the reasoner", settings.reasoner),
        Endpoint("the fallback", settings.fallback) if settings.fallback else None,
        breaker,
        lambda reason: figures.fallbacks.labels(reason).inc(),
    )
    context = Context(memory, counter, settings.budget)
    answerer = Answerer(settings, context, router, pools, figures, conversations)
    runs = Runs(settings.linger, figures.coalesced.inc)
    models = Models(settings)
    mcp_app = mcp_server.server(memory, pools).streamable_http_app(
        # Nothing is kept between requests, so a client survives a restart of the gateway.
        stateless_http=True,
        json_response=True,
        max_request_body_size=settings.most_body,
        # The guard below has looked at Host and Origin already.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    def gateway(session: str | None) -> dict[str, Any]:
        return {
            "gateway": {
                "answers_running": len(runs),
                "breaker": breaker.state,
                "window": settings.budget.window,
                "tokens_exact": context.counter.exact,
            },
            "conversations": conversations.figures(session),
        }

    async def page(request: Request) -> Response:
        figures.running.set(len(runs))
        figures.breaker.set(breaker.state == "open")
        figures.pending.set(await pools.ask(memory.backlog))
        return Response(figures.page(), media_type=metrics.CONTENT_TYPE)

    async def health(request: Request) -> Response:
        return Json({"status": "ok"})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with mcp_app.router.lifespan_context(mcp_app):
            yield
        await runs.close(settings.drain)
        await answerer.observer.drain(settings.drain)
        await router.close()
        pools.close()

    rest = Rest(memory, pools, settings.body_seconds, gateway)
    return Starlette(
        routes=[
            Route(
                "/v1/chat/completions",
                Chat(settings, answerer, runs),
                methods=["POST"],
            ),
            Route("/v1/models", models.every, methods=["GET"]),
            Route("/v1/models/{name:path}", models.one, methods=["GET"]),
            *rest.routes(),
            *mcp_app.routes,
            Route("/metrics", page, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
        ],
        middleware=[
            Middleware(Bodies, most=settings.most_body),
            Middleware(_Counted, figures=figures),
            Middleware(Guard, settings=settings),
        ],
        exception_handlers={
            ApiError: _told,
            ClaraError: _told,
            HTTPException: _told,
            Exception: _told,
        },
        lifespan=lifespan,
    )


async def _told(request: Request, error: Exception) -> Response:
    """Every error in OpenAI's shape."""
    if isinstance(error, ApiError):
        return error.response()
    if isinstance(error, ClaraError):
        return refused(error).response()
    if isinstance(error, HTTPException):
        answer = ApiError(error.status_code, error.detail).response()
        answer.headers.update(error.headers or {})
        return answer
    return ApiError(500, "the gateway failed; its log says why", code="internal_error").response()


class _Counted:
    """ASGI middleware that counts requests by route and status."""

    def __init__(self, app: ASGIApp, figures: Metrics) -> None:
        self.app, self._figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = str(message["status"])
                self._figures.requests.labels(_route(scope["path"]), status).inc()
            await send(message)

        await self.app(scope, receive, counted)


def _route(path: str) -> str:
    """A path's route, one of a few whatever clients ask for."""
    if path in ("/v1/chat/completions", "/v1/models", "/mcp", "/metrics", "/health"):
        return path
    for known in ("remember", "recall", "ask", "forget", "original", "status"):
        if path.startswith(f"/v1/memory/{known}"):
            return f"/v1/memory/{known}"
    return "other"
