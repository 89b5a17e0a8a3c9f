"""Connections that wait for too long or are too many, so that no client can stop the others.

uvicorn bounds neither the time of a request's headers nor the number of connections. A few silent
ones would then use up all files of the process, and nobody else would be served.
"""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Files that are asked for at the start: two for each of the most connections, and more.
_FILES = 8192

# Files that are kept for the memory (some for each thread of `Pools`), the model and the log.
_KEPT_FILES = 128

# Files that are kept for the memory of each further namespace.
_FILES_PER_NAMESPACE = 48

# Files for each connection: its own, and one to the endpoint that its request is passed on to.
_FILES_PER_CONNECTION = 2

# Seconds between two looks at all connections.
_LOOK_SECONDS = 1.0

# Seconds in which a client must take a part of what it is sent. A laptop that sleeps may ask again.
_STALLED_SECONDS = 60.0

_BUSY = json.dumps(
    {
        "error": {
            "message": "all connections of this server are busy; try again soon",
            "type": "server_error",
            "param": None,
            "code": "busy",
        }
    }
).encode()
_BUSY_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    b"x-should-retry: true\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BUSY), _BUSY)
)


def raise_file_limit() -> None:
    """Let this process open more files, as far as the system allows; macOS starts with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # then there are fewer connections
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections(wanted: int, namespaces: int = 0) -> int:
    """The number of connections that this process can serve, at most ``wanted``.

    Args:
        wanted: The most that there should be.
        namespaces: The number of namespaces that have a memory of their own.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    kept = _KEPT_FILES + namespaces * _FILES_PER_NAMESPACE
    return max(1, min(wanted, (files - kept) // _FILES_PER_CONNECTION))


class Connections:
    """The open connections of a server. Used from the event loop only.

    A connection waits while the server has nothing to do for it: no request of it is complete. To
    make room for a new one, the connection that has waited for the longest time is closed.

    Args:
        most: The largest number of connections.
        seconds: The most that a connection may take until the headers of its next request are
            complete.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # the one that has waited longest comes first
        self._is_looking = False

    def protocol(self, **given: Any) -> Connection:
        """A new connection, given what uvicorn gives its protocols."""
        return Connection(self, **given)

    def admit(self, new: Connection) -> bool:
        """Add a connection, in place of a waiting one if there are too many; or refuse it."""
        if len(self._open) >= self._most:
            if not self._waiting:
                return False
            next(iter(self._waiting)).abort()
        self._open.add(new)
        self._waiting[new] = None
        if not self._is_looking:
            self._is_looking = True
            new.loop.call_later(_LOOK_SECONDS, self._end_late_ones, new.loop)
        return True

    def note(self, connection: Connection, *, waits: bool) -> None:
        """Note whether a connection waits from now on."""
        if connection not in self._open:
            return
        if not waits:
            self._waiting.pop(connection, None)
        elif connection not in self._waiting:
            self._waiting[connection] = None

    def drop(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def abort(self) -> None:
        """Close all connections, whatever they wait for."""
        for connection in list(self._open):
            connection.abort()

    def _end_late_ones(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self._open):
            if connection.is_late(now, self._seconds):
                connection.abort()
        self._is_looking = bool(self._open)
        if self._is_looking:
            loop.call_later(_LOOK_SECONDS, self._end_late_ones, loop)


class Connection(H11Protocol):
    """A connection with limits of time; see `Connections`."""

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._connections = connections
        self._waits_since: float | None = None  # for headers, by the loop's clock
        self._unsent = 0  # bytes that the client had yet to take at the last look
        self._taken_at = 0.0  # when it last took some, by the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or tell the client that there are too many."""
        super().connection_made(transport)
        if self._connections.admit(self):
            self._waits_since = self.loop.time()
            return
        self.connections.discard(self)
        transport.write(_BUSY_RESPONSE)
        transport.close()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived."""
        if self.transport.is_closing():  # it was refused
            return
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        """Continue with the next request."""
        super().on_response_complete()
        self._note()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        self._connections.drop(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End, or finish the one answer that is being made; a request that still arrives ends."""
        if self.conn.their_state is h11.SEND_BODY:
            self.abort()
        elif not self.transport.is_closing():
            super().shutdown()

    def abort(self) -> None:
        """Close at once; what the client has not taken yet is lost."""
        self._connections.drop(self)
        self.transport.abort()

    def is_late(self, now: float, seconds: float) -> bool:
        """Whether the client keeps the server waiting, with its headers or by taking nothing."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent or not self._unsent:
            self._taken_at = now
        self._unsent = unsent
        if unsent:
            return now - self._taken_at > _STALLED_SECONDS
        return self._waits_since is not None and now - self._waits_since > seconds

    def _note(self) -> None:
        """Note what the connection waits for: the headers of a request, its body, or an answer."""
        state = self.conn.their_state
        if state is not h11.IDLE:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = self.loop.time()
        self._connections.note(self, waits=state in (h11.IDLE, h11.SEND_BODY))
