"""The gateway as an ASGI application, with everything that belongs to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clara_mlx.context import Counter
from clara_mlx.errors import ClaraError, StorageFailed, for_strangers
from clara_mlx.memory import Memory
from clara_mlx.serve.apis import APIS, error_response
from clara_mlx.serve.bodies import BodyLimit, Json
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.figures import CONTENT_TYPE, Figures
from clara_mlx.serve.inspector.entry import Entry, is_page
from clara_mlx.serve.inspector.pages import open_routes
from clara_mlx.serve.json_errors import JsonErrors
from clara_mlx.serve.models import Models
from clara_mlx.serve.namespace import ByNamespace, Namespace
from clara_mlx.serve.paths import Paths, not_found
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.preparing_process import PreparingProcess
from clara_mlx.serve.reasoner_cache import ReasonerCache
from clara_mlx.serve.route import Breaker, Router
from clara_mlx.serve.security import NAMESPACE, Guard
from clara_mlx.serve.server import Server
from clara_mlx.serve.settings import DEFAULT, Settings, is_loopback
from clara_mlx.serve.token_counts import COUNT_TOKENS
from clara_mlx.serve.upstream import Endpoint
from clara_mlx.store.protocol import DatabaseUrl

logger = logging.getLogger(__name__)

# Seconds that calls of the memory have to end when the gateway stops, once all answers have ended.
_LAST_SECONDS = 5.0

_ROUTES = frozenset(
    (
        *(api.path for api in APIS.values()),
        *(COUNT_TOKENS, "/v1/models", "/mcp", "/metrics", "/health"),
    )
)
_MEMORY_ROUTES = ("remember", "recall", "ask", "forget", "original", "status")


def create_server(
    settings: Settings,
    memory: Memory,
    counter: Counter | None = None,
    namespaces: Mapping[str, Memory] | None = None,
) -> Server:
    """A server of the gateway; its ``run`` runs it until a signal stops it.

    It then takes no new connections, gives clients that wait for an answer ``settings.drain``
    seconds, and remembers what has not been remembered yet. See `create_app`.
    """
    app = create_app(settings, memory, counter, namespaces)
    return Server(app, settings)


def create_app(
    settings: Settings,
    memory: Memory,
    counter: Counter | None = None,
    namespaces: Mapping[str, Memory] | None = None,
) -> Starlette:
    """The application; the caller closes the memories after the application has ended.

    Args:
        settings: The settings of the gateway.
        memory: The memory of all clients without a namespace of their own.
        counter: Counts the reasoner's tokens; without one, they are estimated.
        namespaces: By name, the memory of each namespace in ``settings.namespaces``.
    """
    memories = {DEFAULT: memory, **(namespaces or {})}
    if set(memories) - {DEFAULT} != set(settings.namespaces):
        raise ClaraError("each namespace needs one token and one memory")
    figures = Figures(ReasonerCache(settings.budget.cache, settings.cache_known_by))
    pools = Pools()
    process = PreparingProcess(settings, memories.values(), counter)
    breaker = Breaker(settings.failures, settings.pause)
    reasoners = Router(
        Endpoint("the reasoner", settings.reasoner, mask=settings.mask),
        Endpoint("the fallback", settings.fallback, mask=settings.mask)
        if settings.fallback
        else None,
        breaker,
        lambda reason: figures.fallbacks.labels(reason).inc(),
    )
    entry = Entry(settings.tokens)
    spaces = {
        name: Namespace(name, settings, one, counter, reasoners, pools, process, figures, entry)
        for name, one in memories.items()
    }
    models = Models(settings)
    reasoner_is_here = is_loopback(urlsplit(settings.reasoner.url).hostname or "")
    if memory.model_thread and reasoner_is_here:  # the two share one GPU
        running = [space.runs for space in spaces.values()]
        memory.model_thread.is_machine_wanted = lambda: any(map(len, running))

    async def metrics(request: Request) -> Response:
        """The totals of all namespaces: for the operator, whose token opens none of them."""
        if request.scope[NAMESPACE] != DEFAULT:
            raise ApiError(
                403, "the metrics count all namespaces: they need CLARA_MLX_TOKEN", code="forbidden"
            )
        figures.running.set(sum(len(space.runs) for space in spaces.values()))
        figures.breaker.set(breaker.state == "open")
        waiting = [await pools.ask(space.memory.backlog) for space in spaces.values()]
        figures.pending.set(sum(waiting))
        return Response(figures.page(), media_type=CONTENT_TYPE)

    async def health(request: Request) -> Response:
        return Json({"status": "ok"})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for space in spaces.values():
                await stack.enter_async_context(space.running())
            yield
        await asyncio.gather(*(space.close() for space in spaces.values()))
        await reasoners.close()
        await asyncio.to_thread(process.close)
        app.state.has_ended = await asyncio.to_thread(pools.close, _LAST_SECONDS)

    app = Starlette(
        routes=[
            Route("/v1/models", models.list, methods=["GET"]),
            Route("/v1/models/{name:path}", models.get, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            *open_routes(entry),
            Mount("/", ByNamespace(spaces)),
        ],
        middleware=[
            Middleware(Paths),
            Middleware(BodyLimit, limit=settings.body_limit),
            Middleware(_RequestCounter, figures=figures),
            Middleware(Guard, settings=settings, entry=entry),
            Middleware(JsonErrors),
        ],
        exception_handlers=dict.fromkeys(
            (ApiError, ClaraError, HTTPException, Exception),
            _ErrorResponse([one.path for one in memories.values()]),
        ),
        lifespan=lifespan,
    )
    # For the server, which ends the runs when it is stopped, and says whether all work has ended.
    app.state.runs = [space.runs for space in spaces.values()]
    app.state.has_ended = True
    return app


class _ErrorResponse:
    """Answers any error in the shape of the request's API, without the path of a memory's file."""

    def __init__(self, paths: Sequence[Path | DatabaseUrl]) -> None:
        self._paths = paths

    async def __call__(self, request: Request, error: Exception) -> Response:
        """What the client gets."""
        path = request.url.path
        if isinstance(error, ApiError):
            return error_response(error, path)
        if isinstance(error, ClaraError):
            text = str(error)
            for file in self._paths:
                text = for_strangers(text, file)
            if isinstance(error, StorageFailed):
                logger.warning("%s: %s", path, error)
                answer = ApiError(503, text, code="memory_failed", retry=error.transient)
            else:  # the memory refuses what the client asked for
                answer = ApiError(400, text, code="memory_error")
            return error_response(answer, path)
        if isinstance(error, HTTPException) and error.status_code == 404:
            return error_response(not_found(path), path)
        if isinstance(error, HTTPException) and "upgrade" in request.headers:
            # Codex tries a WebSocket first, and at any other status tries it again for seconds.
            message = "there are no WebSockets here: send the request by POST"
            return error_response(ApiError(426, message), path, {"upgrade": "HTTP/1.1"})
        if isinstance(error, HTTPException):
            response = error_response(ApiError(error.status_code, error.detail), path)
            response.headers.update(error.headers or {})
            return response
        message = "the gateway failed; its log says why"
        return error_response(ApiError(500, message, code="internal_error"), path)


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
    if path in _ROUTES:
        return path
    if is_page(path):
        return "/inspector"
    for name in _MEMORY_ROUTES:
        if path.startswith(f"/v1/memory/{name}"):
            return f"/v1/memory/{name}"
    return "other"
