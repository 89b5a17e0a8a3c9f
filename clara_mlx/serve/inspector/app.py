"""The inspector without a gateway: `clara-mlx ui` opens a memory file for its owner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.entry import Entry
from clara_mlx.serve.inspector.pages import Inspector, open_routes
from clara_mlx.serve.pools import Pools
from clara_mlx.serve.security import Guard
from clara_mlx.serve.settings import DEFAULT

# Seconds that calls of the memory have to end when the inspector stops.
_LAST_SECONDS = 5.0


@dataclass(frozen=True)
class Local:
    """Who may speak to an inspector on this machine: whoever has its token, by loopback."""

    token: str = field(repr=False)
    host: str = "127.0.0.1"
    allow_hosts: tuple[str, ...] = ()

    @property
    def tokens(self) -> Mapping[str, str]:
        """The token, by the only namespace that there is."""
        return {DEFAULT: self.token}


def create_inspector(memory: Memory, token: str, *, edit: bool = False) -> Starlette:
    """An application of nothing but the inspector; the caller closes the memory afterwards.

    Args:
        memory: The memory to look at.
        token: What a browser must send once. Other users of the machine can reach the port, but
            not read the file, so there always is one.
        edit: Whether memories can be deleted.
    """
    local = Local(token)
    entry = Entry(local.tokens)
    pools = Pools()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        pools.close(_LAST_SECONDS)

    routes: list[Route] = [
        *open_routes(entry),
        *Inspector(memory, pools, entry, DEFAULT, edit).routes(),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, settings=local, entry=entry)],
        lifespan=lifespan,
    )


def inspector_server(app: Starlette) -> uvicorn.Server:
    """A server for it; its ``run`` runs it until a signal stops it."""
    config = uvicorn.Config(
        app,
        ws="none",
        access_log=False,  # addresses name sessions, and the first one has the token
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
