"""The gateway on a real port, in front of an upstream whose answers a test writes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from clara_mlx import serve
from clara_mlx.context import Counter
from clara_mlx.memory import Memory
from clara_mlx.store.opening import beside

#: Answers the body of a request.
Reply = Callable[[dict[str, Any]], Awaitable[Response]]

#: What an answer waits for: some seconds, or an event that the test sets.
Wait = float | threading.Event


@contextmanager
def running(server: uvicorn.Server) -> Iterator[str]:
    """A server in a thread, which is ended gracefully; gives its URL."""
    with serve.listening_socket("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=60)
            assert not thread.is_alive(), "the server does not end"


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Wait until something is true; fail if it does not become true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.005)


class Upstream:
    """A server of any API; each request takes the next reply, the last one stays.

    Attributes:
        requests: The bodies that came.
        headers: The headers that came.
        left: Number of clients that closed the connection before their answer was complete.
    """

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.left = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        paths = ("/v1/chat/completions", "/v1/messages", "/v1/responses")
        routes = [Route(path, self._answer, methods=["POST"]) for path in paths]
        config = uvicorn.Config(
            Starlette(routes=routes), log_config=None, timeout_graceful_shutdown=1
        )
        with running(uvicorn.Server(config)) as url:
            yield url + "/v1"

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        answer = asyncio.ensure_future(reply(body))
        left = asyncio.create_task(self._wait_for_disconnect(request))
        await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if answer.done():
            return answer.result()
        answer.cancel()  # so that the server need not wait for it when it ends
        return Response(status_code=499)

    async def _wait_for_disconnect(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.left += 1


def says(
    text: str = "",
    *calls: tuple[str, dict[str, Any] | str],
    finish: str | None = None,
    usage: dict[str, Any] | None = None,
    wait: Wait = 0.0,
    pieces: int = 3,
    **more: Any,
) -> Reply:
    """An answer with a text and tool calls, in mlx_lm.server's form."""
    finish = finish or ("tool_calls" if calls else "stop")
    usage = usage or {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
    written = [
        {
            "id": f"id-{name}-{number}",
            "type": "function",
            "function": {"name": name, "arguments": a if isinstance(a, str) else json.dumps(a)},
        }
        for number, (name, a) in enumerate(calls)
    ]

    async def reply(body: dict[str, Any]) -> Response:
        if not body.get("stream"):
            await pause(wait)
            message = {"role": "assistant", "content": text or None, **more}
            if written:
                message["tool_calls"] = written
            choice = {"index": 0, "finish_reason": finish, "message": message}
            own = {"id": "u", "object": "chat.completion", "created": 1, "model": body["model"]}
            return JSONResponse({**own, "choices": [choice], "usage": usage})
        deltas: list[dict[str, Any]] = [{key: value} for key, value in more.items()]
        step = max(1, -(-len(text) // pieces))
        deltas += [{"content": text[i : i + step]} for i in range(0, len(text), step)]
        deltas += [{"tool_calls": [{**c, "index": i}]} for i, c in enumerate(written)]
        return stream_of(
            [*map(chunk, deltas), chunk({}, finish), {"choices": [], "usage": usage}], wait
        )

    return reply


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "u", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}


async def pause(wait: Wait) -> None:
    if isinstance(wait, threading.Event):
        while not wait.is_set():
            await asyncio.sleep(0.005)
    else:
        await asyncio.sleep(wait)


def stream_of(chunks: list[Any], wait: Wait = 0.0, *, ends: bool = True) -> Response:
    """A stream; a chunk that is a string is sent as it is, an exception is raised."""

    async def events() -> AsyncIterator[str]:
        for number, one in enumerate(chunks):
            if number == 0 and wait:
                yield ": keepalive 1/2\n\n"
                await pause(wait)
            if isinstance(one, Exception):
                raise one
            yield one if isinstance(one, str) else f"data: {json.dumps(one)}\n\n"
        if ends:
            yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def fails(status: int, error: Any = "it failed", **headers: str) -> Reply:
    async def reply(body: dict[str, Any]) -> Response:
        return JSONResponse({"error": error}, status, headers)

    return reply


class Gateway:
    """A running gateway, with the official client for it."""

    breaks = False  # whether the test breaks the memory on purpose

    def __init__(self, url: str, memory: Memory, token: str | None = None) -> None:
        self.url = url
        self.memory = memory
        headers = {"authorization": f"Bearer {token}"} if token else {}
        # Reading certificates takes longer than most tests, and there is no TLS here.
        plain = {"trust_env": False, "verify": False}
        self.http = httpx2.Client(base_url=url, timeout=60, headers=headers, **plain)
        self.client = openai.OpenAI(
            base_url=f"{url}/v1",
            api_key=token or "none",
            max_retries=0,
            timeout=60,
            http_client=httpx2.Client(**plain),
        )

    def chat(self, messages: Any, **options: Any) -> Any:
        """An answer through the official client, with the response's ``headers``."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        create = self.client.chat.completions.with_raw_response.create
        raw = create(model="whatever", messages=messages, **options)
        answer = raw.parse()
        answer.headers = raw.headers
        return answer

    def streamed(self, messages: Any, **options: Any) -> list[Any]:
        """All chunks of a stream."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        create = self.client.chat.completions.create
        return list(create(model="whatever", messages=messages, stream=True, **options))

    def status(self, session: str | None = None) -> dict[str, Any]:
        answer = self.http.get("/v1/memory/status", params={"session": session} if session else {})
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def gateway(
    path: Path | str,
    reasoner: str,
    *,
    fallback: str | None = None,
    counter: Counter | None = None,
    clara: Any = None,
    timeout: float = 30,
    remote: dict[str, Any] | None = None,
    fallback_remote: dict[str, Any] | None = None,
    namespaces: dict[str, str] | None = None,
    **settings: Any,
) -> Iterator[Gateway]:
    """A gateway in front of a reasoner, with a memory of its own in a folder, or at a URL.

    ``timeout`` is the reasoner's; the fallback has time. ``namespaces`` have tokens by name.
    """
    other = None
    if fallback:
        usual = {"timeout": 30, "obeys": True, "images": True}
        given = usual | (fallback_remote or {})
        other = serve.Remote(fallback, "other-model", "secret-key", **given)
    chosen = serve.Settings(
        reasoner=serve.Remote(reasoner, timeout=timeout, **(remote or {})),
        fallback=other,
        namespaces=namespaces or {},
        **{"drain": 5.0, "patience": 2.0, **settings},
    )
    with (
        Memory.open(path / "agent.db" if isinstance(path, Path) else path, clara) as memory,
        ExitStack() as stack,
    ):
        thread = memory.model_thread
        others = {
            name: stack.enter_context(
                Memory.open(beside(memory.path, name), clara, model_thread=thread)
            )
            for name in chosen.namespaces
        }
        server = serve.create_server(chosen, memory, counter, others)
        url = stack.enter_context(running(server))
        made = Gateway(url, memory, chosen.token)
        yield made
        # A gateway goes on without its memory. A test that does not break it must not need that.
        assert "clara_memory_errors_total 0.0" in made.http.get("/metrics").text or made.breaks


def text_of(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
