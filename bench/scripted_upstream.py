"""A server of chat completions that speaks as well or as badly as it is told to.

Used by hostile.py and held.py. It measures nothing by itself.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

#: Writes an answer to the body of a request into the connection that it came from.
Answers = Callable[[socket.socket, dict[str, Any]], None]


def response(content: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole HTTP response with a length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + content


def completion(body: Mapping[str, Any], text: str, *calls: tuple[str, str], **more: Any) -> bytes:
    """A chat completion, streamed if the request asks for that, as a whole HTTP response."""
    usage = {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53} | more
    base = {"id": "x", "created": 1, "model": "m"}
    finish = "tool_calls" if calls else "stop"
    written = [
        {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}
        for function in ({"name": name, "arguments": given} for name, given in calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if not body.get("stream"):
        if written:
            message["tool_calls"] = written
        choice = {"index": 0, "message": message, "finish_reason": finish}
        whole = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
        return response(json.dumps(whole).encode())
    if written:
        message["tool_calls"] = [{**call, "index": n} for n, call in enumerate(written)]
    choices = [
        {"index": 0, "delta": message, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": finish},
    ]
    chunks = [{**base, "object": "chat.completion.chunk", "choices": [c]} for c in choices]
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return response(events.encode(), kind="text/event-stream")


def says(text: str = "ok", *calls: tuple[str, str], **usage: Any) -> Answers:
    """The behaviour of a server that gives one answer to everything."""
    return lambda connection, body: connection.sendall(completion(body, text, *calls, **usage))


def sends(*pieces: bytes, pause: float = 0.0) -> Answers:
    """The behaviour of a server that sends these bytes, whatever it is asked, and hangs up."""

    def send(connection: socket.socket, body: dict[str, Any]) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)

    return send


class Upstream:
    """An HTTP server of one request a connection, on a free port of this machine.

    Attributes:
        answer: What it does with a request; may be replaced at any time.
        heads: The heads of the requests that came.
        bodies: Their bodies as they came.
    """

    def __init__(self, answer: Answers | None = None) -> None:
        self.answer = answer or says()
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def messages(self, number: int = -1) -> list[dict[str, Any]]:
        """The messages of a request that came."""
        found: list[dict[str, Any]] = json.loads(self.bodies[number])["messages"]
        return found

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            stream = connection.makefile("rb")
            head = b"".join(iter(stream.readline, b"\r\n")).decode("latin-1")
            length = re.search(r"(?im)^content-length: *(\d+)", head)
            content = stream.read(int(length[1])) if length else b""
            self.heads.append(head)
            self.bodies.append(content)
            self.answer(connection, json.loads(content or b"{}"))
