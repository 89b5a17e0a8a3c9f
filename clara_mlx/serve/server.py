"""Running the gateway: one process, ended gracefully."""

from __future__ import annotations

import logging
import socket

import uvicorn

from clara_mlx.context import Counter
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.serve import app
from clara_mlx.serve.settings import Settings

logger = logging.getLogger(__name__)


def server(settings: Settings, memory: Memory, counter: Counter | None = None) -> uvicorn.Server:
    """A uvicorn server of the gateway; `uvicorn.Server.run` runs it until it is told to end.

    It then takes no new connections, gives those that wait for an answer ``drain`` seconds, and
    remembers what has not been remembered yet.
    """
    config = uvicorn.Config(
        app.create(settings, memory, counter),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
    )
    return uvicorn.Server(config)


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; its ``getsockname()`` tells the port if 0 was asked for.

    Raises:
        ClaraError: the address can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named, or asyncio leaves Nagle's algorithm on: 40 ms for each answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ClaraError(f"{host}:{port} can't be listened on: {error.strerror}") from error
    return listening
