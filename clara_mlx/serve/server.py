"""The server that runs the gateway until it is stopped, and the socket that it listens on."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette

from clara_mlx.errors import ClaraError
from clara_mlx.serve.connections import Connections, most_connections
from clara_mlx.serve.settings import Settings

# Connections that may wait to be accepted.
_BACKLOG = 2048

# Connections that are accepted before those that are too many are closed. asyncio would accept the
# whole backlog at once, and take files that the memory needs.
_ACCEPTED_AT_ONCE = 16

# Seconds that clients have to read the error, when their answer could not be finished in time.
_LAST_SECONDS = 2.0

# Seconds after which uvicorn would cancel what is left; there should be nothing.
_SPARE_SECONDS = 5.0


class Server(uvicorn.Server):
    """A server with limited connections. When it is stopped, it ends the answers in their order.

    Answers get `Settings.drain` seconds to finish. Clients of the others then get an error that
    says so, and at last all connections are closed.
    """

    def __init__(self, app: Starlette, settings: Settings) -> None:
        self._connections = Connections(
            most_connections(settings.connections, len(settings.namespaces)),
            settings.header_seconds,
        )
        self._drain = settings.drain
        self._app = app
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=self._connections.protocol,  # type: ignore[arg-type]  # it is only called
            ws="none",
            backlog=_ACCEPTED_AT_ONCE,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=max(1, round(settings.header_seconds)),
            timeout_graceful_shutdown=round(settings.drain + _LAST_SECONDS + _SPARE_SECONDS),
        )
        super().__init__(config)

    @property
    def has_ended(self) -> bool:
        """Whether no call of the memory is running any more, once the server has been stopped."""
        return bool(self._app.state.has_ended)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_BACKLOG)  # what asyncio has set is the other number

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what can be finished, then the rest."""
        ending = asyncio.create_task(self._end_answers())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_answers(self) -> None:
        every = self._app.state.runs
        await asyncio.gather(*(runs.close(self._drain) for runs in every))
        await asyncio.sleep(_LAST_SECONDS)
        self._connections.abort()


def listening_socket(host: str, port: int) -> socket.socket:
    """A listening socket; if ``port`` is 0, its ``getsockname()`` has the port that was chosen.

    Raises:
        ClaraError: This machine can't listen on that address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named, or asyncio leaves Nagle's algorithm on: 40 ms for each answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ClaraError(
            f"can't listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error
    return listening
