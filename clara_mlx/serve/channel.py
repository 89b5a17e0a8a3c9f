"""A socket between two processes of the gateway: JSON values, each with bytes beside it."""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

# The lengths of the value, written as JSON, and of the bytes.
_LENGTHS = struct.Struct(">QQ")


class Channel:
    """Sends and receives over a socket. One thread may send while another receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, value: Any, content: bytes = b"", seconds: float | None = None) -> None:
        """Send a value, and bytes that need not be read to be passed on.

        Args:
            value: The value.
            content: The bytes.
            seconds: The most that the other side may take to receive either of them.

        Raises:
            TimeoutError: The time is up.
            OSError: The other side has ended.
        """
        written = json.dumps(value).encode()
        if seconds is not None:
            self._connection.settimeout(seconds)
        self._connection.sendall(_LENGTHS.pack(len(written), len(content)) + written)
        self._connection.sendall(content)

    def receive(self, seconds: float | None = None) -> tuple[Any, bytes]:
        """The next value, and the bytes beside it.

        Args:
            seconds: The most to wait until all of it is there; None waits for ever.

        Raises:
            TimeoutError: The time is up.
            OSError: The other side has ended.
            ValueError: It has sent nonsense.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        value, content = _LENGTHS.unpack(self._read(_LENGTHS.size, deadline))
        return json.loads(self._read(value, deadline)), bytes(self._read(content, deadline))

    def close(self) -> None:
        """Close the socket; the other side notices."""
        self._connection.close()

    def _read(self, size: int, deadline: float | None) -> bytearray:
        read = bytearray(size)
        left = memoryview(read)
        while left:
            if deadline is not None:
                self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            count = self._connection.recv_into(left)
            if not count:
                raise ConnectionError("the other side has ended")
            left = left[count:]
        return read
