"""Requests that are nearly right get an answer or a refusal: never a 500, a traceback or a hang.

The gateway has no OpenAPI description yet, from which schemathesis could make such requests; here
hypothesis changes valid ones (tests/support/odd_requests.py). There is no network in between: the
application is called in this process, some 100 times for each API, and 10,000 times in the nightly
run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway import Upstream, says
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages_api import check_error, check_message, check_stream, events_of
from odd_requests import Request, changed, contents, headers, written
from responses_requests import INPUT, RESPONSES
from sizes import sized

from clara_mlx import serve
from clara_mlx.context import Budget
from clara_mlx.memory import Memory

REQUESTS = sized(500, 10_000)

# Seconds of this process's own time that a request may take, and seconds until it counts as hung.
MOST_WORK = 1.5
HUNG = 30.0

# Statuses of what the same request can never succeed with.
FOR_GOOD = {400, 401, 403, 404, 405, 406, 413, 415, 421}

LOG = "\n".join(f"step {n}: built module_{n * 7919 % 1009}.c" for n in range(60))
CALL = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"a": "ls"}'}}
CHAT: dict[str, Any] = {
    "model": "reasoner",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Fix the build."}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": LOG},
        {"role": "assistant", "content": "Done.", "reasoning": "so it is"},
        {"role": "user", "content": "Sure?"},
    ],
    "tools": [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}],
    "max_tokens": 20,
    "temperature": 0.0,
    "top_p": 1,
    "stop": ["END"],
    "seed": 1,
    "logit_bias": {"5": 1.5},
    "tool_choice": "auto",
    "response_format": {"type": "text"},
    "stream_options": {"include_usage": True},
}
MESSAGES: dict[str, Any] = {
    "model": "claude",
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: a"},
        {"type": "text", "text": "Be brief."},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Fix.", "cache_control": {}}]},
        {"role": "system", "content": "Be brief."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "tool_use", "id": "c1", "name": "bash", "input": {"a": "ls"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "is_error": True,
                    "content": [{"type": "text", "text": LOG}],
                },
                {"type": "document", "source": {"type": "text", "data": "d"}, "title": "t"},
                {"type": "image", "source": {"type": "url", "url": "http://a.example/b.png"}},
            ],
        },
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Sure?"},
    ],
    "tools": [
        {"name": "bash", "description": "d", "input_schema": {"type": "object"}},
        {"type": "web_search_20250305", "name": "web_search"},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "max_tokens": 20,
    "temperature": 0.0,
    "top_k": 5,
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
}
WHERE = {"source": "log", "session": ["s", None], "after": 1.0, "before": 9e9, "run": 3}
REST: dict[str, dict[str, Any]] = {
    "remember": {"text": LOG, "source": "log", "session": "s", "metadata": {"run": 3, "x": [{}]}},
    "recall": {"query": "module", "k": 3, "offset": 1, "where": WHERE, "mode": "text"},
    "ask": {"question": "which module?", "k": 2, "where": WHERE, "max_tokens": 8},
    "forget": {"where": WHERE},
}
TOOLS: dict[str, dict[str, Any]] = {
    "remember": {"text": LOG, "source": "log", "session": "s"},
    "recall": {"query": "module", "page": 1, "session": "s"},
    "ask_memory": {"question": "which module?", "session": "s", "handle": "m-1f2e3d4c5b6a"},
    "expand": {"handle": "m-1f2e3d4c5b6a", "start_line": 1, "lines": 5, "find": "step"},
}


class Faults(logging.Handler):
    """Collects what is logged with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0]:
            self.seen.append(logging.Formatter().format(record))


class App:
    """The gateway's application in this thread, with its log."""

    def __init__(self, app: Any, runner: asyncio.Runner, faults: Faults) -> None:
        self._runner = runner
        self._faults = faults
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        self._client = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8100")

    def send(self, request: Request) -> httpx2.Response:
        """The response to a request, which must come soon and without a traceback."""

        async def exchange() -> httpx2.Response:
            made = self._client.build_request(
                request.method, request.path, content=request.content, headers=request.headers
            )
            async with asyncio.timeout(HUNG):
                return await self._client.send(made)

        begun = time.process_time()
        answer = self._runner.run(exchange())
        assert time.process_time() - begun < MOST_WORK
        faults, self._faults.seen = self._faults.seen, []
        assert not faults, faults[0]
        return answer

    def expect(self, request: Request, *, mcp: bool = False) -> httpx2.Response:
        """The response, which must be an answer or an error of the API's shape."""
        answer = self.send(request)
        assert answer.status_code != 500, answer.text
        if answer.status_code >= 400:
            assert_is_error(answer, mcp=mcp)
        return answer


def assert_is_error(answer: httpx2.Response, *, mcp: bool) -> None:
    error = answer.json()["error"]
    assert error["message"] and "Traceback" not in error["message"]
    if mcp and answer.json().get("jsonrpc") == "2.0":
        return  # MCP's own shape
    assert set(error) == {"message", "type", "param", "code"}
    retry = answer.headers["x-should-retry"]
    assert retry in ("true", "false")
    if answer.status_code in FOR_GOOD:
        assert retry == "false", answer.text


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One application for all requests; at the end nothing is damaged and a chat is answered."""
    path: Path = tmp_path_factory.mktemp("fuzz")
    faults = Faults()
    logging.getLogger().addHandler(faults)
    with Upstream(says("ok")).running() as url, Memory.open(path / "agent.db") as memory:
        chosen = serve.Settings(
            reasoner=serve.Remote(url, timeout=30),
            budget=Budget(window=4096, reserve=512),
            max_body_bytes=1 << 20,
            drain=1.0,
        )
        made = serve.create_app(chosen, memory)
        ended = asyncio.Event()

        async def live() -> None:
            async with made.router.lifespan_context(made):
                await ended.wait()

        with asyncio.Runner() as runner:
            life = runner.get_loop().create_task(live())
            runner.run(asyncio.sleep(0))
            app = App(made, runner, faults)
            yield app
            answer = app.send(a_request("/v1/chat/completions", json.dumps(CHAT).encode()))
            assert answer.json()["choices"][0]["message"]["content"] == "ok"
            ended.set()
            runner.run(asyncio.wait_for(life, 30))
        assert not memory.verify().problems
    logging.getLogger().removeHandler(faults)


def a_request(path: str, content: bytes) -> Request:
    return Request("POST", path, content, [(b"content-type", b"application/json")])


def many(strategy: st.SearchStrategy[Any], requests: int = REQUESTS) -> Any:
    """Run a test with as many requests as this run's size says."""
    checks = list(HealthCheck)
    chosen = settings(max_examples=requests, deadline=None, suppress_health_check=checks)
    return lambda test: chosen(given(strategy)(test))


chats = st.tuples(contents(CHAT), headers())


@many(chats)
def test_chat_completions(app: App, made: tuple[bytes, Any]) -> None:
    app.expect(Request("POST", "/v1/chat/completions", *made))


@many(st.tuples(contents({**CHAT, "stream": True}), headers()))
def test_streamed_chat_completions(app: App, made: tuple[bytes, Any]) -> None:
    answer = app.expect(Request("POST", "/v1/chat/completions", *made))
    if answer.headers["content-type"].startswith("text/event-stream"):
        events = answer.text.split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        for event in events[:-2]:
            assert "error" not in json.loads(event.removeprefix("data: "))


@many(
    st.tuples(
        contents(MESSAGES) | contents({**MESSAGES, "stream": True}),
        headers((b"anthropic-version", b"2023-06-01")),
        st.sampled_from(["", "", "", "/count_tokens"]),
    ),
    requests=sized(150, 10_000),
)
def test_messages(app: App, made: tuple[bytes, Any, str]) -> None:
    content, given_headers, more = made
    answer = app.send(Request("POST", "/v1/messages" + more, content, given_headers))
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400:
        check_error(answer.json())
        assert answer.status_code not in FOR_GOOD or answer.headers["x-should-retry"] == "false"
    elif answer.headers["content-type"].startswith("text/event-stream"):
        events = events_of(answer.text)
        check_stream(events, beta=True)
        assert events[-1]["type"] == "message_stop"
    elif more:
        assert answer.json()["input_tokens"] > 0
    else:
        check_message(answer.json(), beta=True)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/compact"])
def test_responses(app: App, path: str) -> None:
    triggered = {**RESPONSES, "input": [*INPUT, {"type": "compaction_trigger"}]}
    streamed = st.sampled_from([RESPONSES, {**RESPONSES, "stream": True}, triggered])

    @many(st.tuples(streamed.flatmap(contents), headers()), requests=sized(30, 5_000))
    def check(made: tuple[bytes, Any]) -> None:
        answer = app.expect(Request("POST", path, *made))
        if answer.headers["content-type"].startswith("text/event-stream"):
            events = [event.split("\ndata: ") for event in answer.text.split("\n\n")[:-1]]
            written = [(name.removeprefix("event: "), json.loads(data)) for name, data in events]
            assert [name for name, _ in written] == [event["type"] for _, event in written]
            numbers = [event["sequence_number"] for _, event in written]
            assert numbers == list(range(len(written)))
            assert written[-1][0] in ("response.completed", "response.incomplete")

    check()


@pytest.mark.parametrize("route", REST)
def test_memory_routes(app: App, route: str) -> None:
    @many(st.tuples(contents(REST[route]), headers()))
    def check(made: tuple[bytes, Any]) -> None:
        app.expect(Request("POST", f"/v1/memory/{route}", *made))

    check()


names = st.text(st.characters(exclude_characters="/?#"), max_size=20) | st.sampled_from(
    ["", "reasoner", "m-1f2e3d4c5b6a", "..", "%2e%2e/", "%00", "%ff", "\ud800", "*", "' OR 1=1"]
)
gets = st.sampled_from(
    ["/v1/models", "/v1/models/", "/v1/memory/original/", "/v1/memory/status?session=", "/health?"]
)
methods = st.sampled_from(["GET"] * 6 + ["POST", "HEAD", "OPTIONS", "DELETE", "PUT", "X" * 50])


@many(st.tuples(methods, gets, names, st.binary(max_size=5), headers()))
def test_paths(app: App, made: tuple[str, str, str, bytes, Any]) -> None:
    method, path, name, content, given_headers = made
    escaped = "".join(f"%{byte:02x}" for byte in name.encode("utf-8", "surrogatepass"))
    answer = app.send(Request(method, path + escaped, content, given_headers))
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400 and method != "HEAD":
        assert_is_error(answer, mcp=False)


accepts = (b"accept", b"application/json, text/event-stream")


@st.composite
def mcp_requests(draw: st.DrawFn) -> tuple[bytes, Any]:
    tool = draw(st.sampled_from(sorted(TOOLS)))
    arguments = draw(changed(TOOLS[tool]))
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    valid = {**call, "params": {"name": tool, "arguments": arguments}}
    if draw(st.booleans()):
        return written(valid).encode("utf-8", "surrogatepass"), [*draw(headers(accepts))]
    return draw(contents({**valid, "params": {**valid["params"], "_meta": {}}})), draw(
        headers(accepts)
    )


@many(mcp_requests())
def test_mcp(app: App, made: tuple[bytes, Any]) -> None:
    app.expect(Request("POST", "/mcp", *made), mcp=True)
