"""A reasoner that follows a script: it calls the tools it is told to, and asks the memory at last.

It speaks chat completions over HTTP, as mlx_lm.server does, and counts what it is sent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clara_mlx.context.counting import Estimate
from clara_mlx.serve import listening_socket

# Seconds within which the server starts.
_START = 10.0


class ScriptedReasoner:
    """Answers the n-th question of its client with the n-th command, and then from the memory.

    Args:
        commands: What it calls the client's tool with, in this order.
        fact: What it looks for at the end; the line of the memory's answer that has it, it repeats.
        question: How it asks the memory for it.
    """

    def __init__(self, commands: Sequence[str], question: str, fact: str) -> None:
        self._commands = commands
        self._question = question
        self._fact = fact
        self._counter = Estimate()
        self.read: list[int] = []  # tokens of the prompt of each request
        self.asked = ""  # the name of the memory's tool that it called
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve on a free port of this machine for the time of a block; `url` says which."""
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._list_models),
            ]
        )
        with listening_socket("127.0.0.1", 0) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            try:
                yield
            finally:
                server.should_exit = True
                thread.join(_START)

    async def _list_models(self, _: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    async def _complete(self, request: Request) -> JSONResponse:
        body = await request.json()
        messages, tools = body["messages"], body.get("tools") or []
        tokens = self._counter.prompt(messages, tools)
        self.read.append(tokens)
        message = self._next(messages, [tool["function"]["name"] for tool in tools])
        return JSONResponse(
            {
                "id": f"scripted-{len(self.read)}",
                "object": "chat.completion",
                "created": 0,
                "model": "scripted",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant"} | message,
                        "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": tokens,
                    "completion_tokens": 1,
                    "total_tokens": tokens + 1,
                },
            }
        )

    def _next(self, messages: list[dict[str, Any]], tools: list[str]) -> dict[str, Any]:
        number = len(self.read) - 1
        if number < len(self._commands):
            return _call(f"call-{number}", "bash", {"command": self._commands[number]})
        if not self.asked and "ask_memory" in tools:
            self.asked = "ask_memory"
            return _call("call-memory", self.asked, {"question": self._question})
        result = str(messages[-1].get("content"))
        lines = [line.strip() for line in result.splitlines() if self._fact in line]
        return {"content": lines[0] if lines else "I can't see it any more."}


def _call(id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"content": "", "tool_calls": [{"id": id, "type": "function", "function": function}]}
