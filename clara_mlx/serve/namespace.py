"""A namespace: the clients of one token, their memory, and everything that answers from it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from clara_mlx.context import Context, Counter
from clara_mlx.memory import Memory
from clara_mlx.serve.answering import Answerer
from clara_mlx.serve.apis import APIS
from clara_mlx.serve.bodies import ReadFirst
from clara_mlx.serve.bookkeeping import ASKS_BACK, Bookkeeper
from clara_mlx.serve.compacting import Compactor
from clara_mlx.serve.delivery import Delivery
from clara_mlx.serve.figures import Figures
from clara_mlx.serve.inspector.entry import Entry
from clara_mlx.serve.inspector.pages import Inspector
from clara_mlx.serve.mcp_server import create_mcp_server
from clara_mlx.serve.paths import not_found
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.preparing_process import PreparingProcess
from clara_mlx.serve.reception import Reception
from clara_mlx.serve.rest import Rest
from clara_mlx.serve.route import Router as Reasoners
from clara_mlx.serve.runs import Runs
from clara_mlx.serve.security import NAMESPACE
from clara_mlx.serve.settings import Settings
from clara_mlx.serve.token_counts import COUNT_TOKENS, TokenCounts


class Namespace:
    """The part of the gateway that one token opens; nothing in it knows of another namespace.

    Namespaces share the endpoints, the threads and the totals of the figures.

    Args:
        name: The namespace's name.
        settings: The settings of the gateway.
        memory: The namespace's memory.
        counter: Counts the reasoner's tokens.
        reasoners: Asks the reasoner or the fallback.
        pools: The threads in which calls of the memory run.
        process: The process in which heavy conversations are prepared.
        figures: The totals.
        entry: Who may open the inspector's pages.

    Attributes:
        memory: The namespace's memory.
        runs: The answers in the making.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        memory: Memory,
        counter: Counter | None,
        reasoners: Reasoners,
        pools: Pools,
        process: PreparingProcess,
        figures: Figures,
        entry: Entry,
    ) -> None:
        self.memory = memory
        self.runs = Runs(settings.linger, figures.coalesced.inc)
        self._settings = settings
        self._figures = figures.for_another_namespace()
        self._reasoners = reasoners
        self._context = Context(memory, counter, settings.budget)
        self._books = Bookkeeper(memory, pools)
        counting = self._figures, self._books
        self._answerer = Answerer(settings, self._context, reasoners, pools, *counting)
        compactor = Compactor(settings.name, memory.path, pools, *counting)
        reception = Reception(settings, self._context, pools, process)
        self._mcp = create_mcp_server(memory, pools, self._note_mcp_call).streamable_http_app(
            # Nothing is kept between requests, so a client survives a restart of the gateway.
            stateless_http=True,
            json_response=True,
            max_request_body_size=settings.body_limit("/mcp"),
            # The guard has looked at Host and Origin already.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._router = Router(
            [
                *(
                    Route(
                        api.path,
                        Delivery(api, settings, reception, self._answerer, compactor, self.runs),
                        methods=["POST"],
                    )
                    for api in APIS.values()
                ),
                Route(COUNT_TOKENS, TokenCounts(reception, pools).count, methods=["POST"]),
                *Rest(
                    memory,
                    pools,
                    settings.body_seconds,
                    self._context.undo_session,
                    self._status,
                ).routes(),
                *Inspector(memory, pools, entry, name, settings.edit).routes(),
                *_with_bodies_read_first(self._mcp.routes, settings.body_seconds),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of one of its clients."""
        await self._router(scope, receive, send)

    def running(self) -> AbstractAsyncContextManager[Any]:
        """What must run while requests are answered."""
        return self._mcp.router.lifespan_context(self._mcp)

    async def close(self) -> None:
        """End the answers, and remember what has not been remembered yet."""
        await self.runs.close(self._settings.drain)
        await self._answerer.close(self._settings.drain)
        await self._books.close()

    def _note_mcp_call(self, tool: str, arguments: dict[str, Any]) -> None:
        if tool in ASKS_BACK:
            self._figures.memory_calls.labels(tool, "mcp").inc()
        self._books.note_mcp_call(tool, arguments)

    def _status(self, session: str | None) -> dict[str, Any]:
        return {
            "gateway": {
                "answers_running": len(self.runs),
                "breaker": self._reasoners.breaker.state,
                "window": self._settings.budget.window,
                "tokens_exact": self._context.counter.exact,
                "reasoner_cache": self._figures.cache.for_status(),
            },
            "conversations": self._figures.newest(session),
        }


class ByNamespace:
    """An ASGI application that hands each request to the namespace that the guard has found."""

    def __init__(self, namespaces: Mapping[str, Namespace]) -> None:
        self._namespaces = namespaces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on.

        Raises:
            ApiError: Strangers may ask for this path, but nothing answers there as they ask.
        """
        if scope[NAMESPACE] is None:
            raise not_found(scope["path"])
        await self._namespaces[scope[NAMESPACE]](scope, receive, send)


def _with_bodies_read_first(routes: list[BaseRoute], seconds: float) -> list[Route]:
    # By GET the SDK opens a stream for what the server has to say, which is nothing: it would only
    # occupy a connection, and delay the end. The protocol lets a server refuse it.
    return [
        Route(r.path, ReadFirst(r.app, seconds), methods=["POST"])
        for r in routes
        if isinstance(r, Route)
    ]
