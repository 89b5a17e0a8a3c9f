"""Server-sent events: read from an endpoint however they are cut, written for a client.

httpx2 has a reader, too, but it drops comments, which are the keep-alives of a long prefill.
sse-starlette would write, but it ends all streams as soon as the server is stopped (ours get time
to finish) and pings by the clock, not after silence.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import Any

# Bytes of the longest event that is read; a longer one is not part of a chat completion.
_LONGEST = 16 << 20

#: The end of a stream of OpenAI's API.
DONE = b"data: [DONE]\n\n"


class TooLong(ValueError):
    """An event has no end in sight."""


@dataclass(frozen=True)
class Comment:
    """A keep-alive."""

    text: str


async def read_events(pieces: AsyncIterable[bytes]) -> AsyncGenerator[str | Comment]:
    """The data of a stream's events, and its comments, however its bytes are cut.

    Raises:
        TooLong: An event has more than 16 MiB.
    """
    data: list[str] = []
    size = 0
    async for line in _read_lines(pieces):
        size += len(line) + 1
        if size > _LONGEST:
            raise TooLong(f"an event of more than {_LONGEST} bytes")
        if not line:
            if data:
                yield "\n".join(data)
            data = []
            size = 0
        elif line.startswith(":"):
            yield Comment(line[1:].strip())
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    if data:
        yield "\n".join(data)


async def _read_lines(pieces: AsyncIterable[bytes]) -> AsyncGenerator[str]:
    """The lines of a stream, without their ends."""
    # Bytes are cut at line feeds only: a piece may end inside a character, and U+2028 does not end
    # a line here.
    waiting = bytearray()
    is_first = True
    async for piece in pieces:
        first, *more = piece.split(b"\n")
        waiting += first
        for part in more:
            yield _decode_line(waiting.removeprefix(codecs.BOM_UTF8) if is_first else waiting)
            is_first = False
            waiting = bytearray(part)
        if len(waiting) > _LONGEST:
            raise TooLong(f"a line of more than {_LONGEST} bytes")
    if waiting:
        yield _decode_line(waiting)


def _decode_line(line: bytearray) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")


def encode_event(value: Any, name: str = "") -> bytes:
    """An event with JSON data; lone surrogates, which UTF-8 has no bytes for, stay escaped.

    Args:
        value: The data.
        name: The event's name, for APIs whose events have one.
    """
    data = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
    return f"event: {name}\n".encode() + data if name else data


def encode_comment(text: str) -> bytes:
    """A comment, on one line."""
    return f": {' '.join(text[:200].split())}\n\n".encode()
