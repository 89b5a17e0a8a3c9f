"""Server-sent events: read from an upstream piece by piece, written for a client.

httpx2 has a reader, too, but it drops comments, which are the keep-alives of a long prefill.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import Any

# A line longer than this is no chat completion.
_LONGEST = 16 << 20

#: The end of a stream.
DONE = b"data: [DONE]\n\n"


class TooLong(ValueError):
    """An event has no end in sight."""


@dataclass(frozen=True)
class Comment:
    """A keep-alive."""

    text: str


@dataclass(frozen=True)
class Data:
    """An event's data."""

    text: str


async def read(pieces: AsyncIterable[bytes]) -> AsyncGenerator[Comment | Data]:
    """The events of a stream, however its bytes are cut; only ``data`` and comments count.

    Raises:
        TooLong: a line has more than 16 MiB.
    """
    data: list[str] = []
    async for line in _lines(pieces):
        if not line:
            if data:
                yield Data("\n".join(data))
            data = []
        elif line.startswith(":"):
            yield Comment(line[1:].strip())
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    if data:
        yield Data("\n".join(data))


async def _lines(pieces: AsyncIterable[bytes]) -> AsyncGenerator[str]:
    # Cut at line feeds only, as bytes: characters may be split, and U+2028 is no line's end here.
    waiting = bytearray()
    async for piece in pieces:
        start = len(waiting)
        waiting += piece
        end = waiting.find(b"\n", start)
        while end >= 0:
            line, waiting = waiting[:end], waiting[end + 1 :]
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
            end = waiting.find(b"\n")
        if len(waiting) > _LONGEST:
            raise TooLong(f"a line of more than {_LONGEST} bytes")
    if waiting:
        yield waiting.removesuffix(b"\r").decode("utf-8", "replace")


def event(value: Any) -> bytes:
    """An event with JSON data; lone surrogates, which UTF-8 has no bytes for, stay escaped."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def comment(text: str) -> bytes:
    """A comment."""
    return f": {' '.join(text.split())}\n\n".encode()
