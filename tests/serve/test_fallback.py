"""Failing upstreams, as real servers: one clean answer or one clear error, never a mix."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway import Gateway, Upstream, chunk, fails, gateway, says, stream_of, text_of
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from clara_mlx import serve
from clara_mlx.context import Budget
from clara_mlx.serve.route import Breaker

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "run"}}


async def breaks_off(body: dict[str, Any]) -> Response:
    """The beginning of an answer, and then nothing."""
    return stream_of([chunk({"content": "Half an"}), chunk({"content": " answ"})], ends=False)


async def breaks_at_once(body: dict[str, Any]) -> Response:
    return stream_of([": keepalive 1/9\n\n"], ends=False)


async def closes(body: dict[str, Any]) -> Response:
    """The connection ends inside the body."""
    return Response(b'{"choices": [', headers={"content-length": "9999"})


async def babbles(body: dict[str, Any]) -> Response:
    return PlainTextResponse("<html>nginx</html>")


async def hangs(body: dict[str, Any]) -> Response:
    await asyncio.sleep(30)
    return JSONResponse({})


async def stops_talking(body: dict[str, Any]) -> Response:
    async def pieces() -> Any:
        yield f"data: {json.dumps(chunk({'content': 'Half'}))}\n\n"
        await asyncio.sleep(30)

    return StreamingResponse(pieces(), media_type="text/event-stream")


class Pair:
    """A gateway in front of a reasoner and a fallback, both of which reply as the test says."""

    def __init__(
        self, stack: ExitStack, path: Path, *, timeout: float = 30, **settings: Any
    ) -> None:
        self.reasoner, self.fallback = Upstream(says("local")), Upstream(says("cloud"))
        urls = [stack.enter_context(up.running()) for up in (self.reasoner, self.fallback)]
        self.gate: Gateway = stack.enter_context(
            gateway(path, urls[0], fallback=urls[1], timeout=timeout, **settings)
        )

    def reply(self, *replies: Any) -> None:
        self.reasoner.replies = list(replies)
        self.fallback.requests.clear()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair whose breaker never opens: each test sees its own failure only."""
    with ExitStack() as stack:
        yield Pair(stack, tmp_path_factory.mktemp("pair"), failures=10**6)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair with a short timeout."""
    with ExitStack() as stack:
        path = tmp_path_factory.mktemp("impatient")
        yield Pair(stack, path, failures=10**6, timeout=0.4)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (fails(500), "5xx"),
        (fails(404, "generation thread died"), "5xx"),
        (closes, "broken"),
        (babbles, "broken"),
        (breaks_at_once, "broken"),
        (fails(400, "This model's maximum context length is 4096 tokens"), "overflow"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_fallback_answers_once_and_whole(
    pair: Pair, failing: Any, reason: str, stream: bool, caplog: Any
) -> None:
    check_that_the_fallback_answers(pair, failing, reason, stream, caplog)


@pytest.mark.alone
@pytest.mark.parametrize("stream", [False, True])
def test_the_fallback_answers_after_a_timeout(impatient: Pair, stream: bool, caplog: Any) -> None:
    check_that_the_fallback_answers(impatient, hangs, "timeout", stream, caplog)


def check_that_the_fallback_answers(
    pair: Pair, failing: Any, reason: str, stream: bool, caplog: Any
) -> None:
    pair.reply(failing)
    with caplog.at_level(logging.WARNING):
        if stream:
            chunks = pair.gate.streamed("hi", tools=[TOOL])
            assert text_of(chunks) == "cloud"
            assert {c.model for c in chunks} == {"other-model"}
            assert [c.choices[0].finish_reason for c in chunks].count("stop") == 1
        else:
            answer = pair.gate.chat("hi", tools=[TOOL], temperature=0.3)
            assert answer.choices[0].message.content == "cloud"
            assert answer.model == "other-model"
            assert answer.headers["x-clara-served-by"] == "fallback"
            assert answer.headers["x-clara-fallback-reason"] == reason
    (sent,) = pair.fallback.requests
    assert sent["model"] == "other-model"
    assert pair.fallback.headers[-1]["authorization"] == "Bearer secret-key"
    assert f"the fallback answers ({reason})" in caplog.text and "secret-key" not in caplog.text


def test_a_stream_that_broke_is_never_continued_by_another(pair: Pair) -> None:
    check_that_the_stream_ends_in_an_error(pair, breaks_off, "broke off")


@pytest.mark.alone
def test_a_stream_that_fell_silent_is_never_continued_by_another(impatient: Pair) -> None:
    check_that_the_stream_ends_in_an_error(impatient, stops_talking, "was silent")


def check_that_the_stream_ends_in_an_error(pair: Pair, breaking: Any, error: str) -> None:
    pair.reply(breaking)
    seen = []
    with pytest.raises(openai.APIError, match=error):
        for one in pair.gate.client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        ):
            seen.append(one.choices[0].delta.content or "")
    assert "Half an answ".startswith("".join(seen)) and seen
    assert not pair.fallback.requests
    body = {"messages": [{"role": "user", "content": "raw"}], "stream": True}
    raw = pair.gate.http.post("/v1/chat/completions", json=body).text
    assert raw.count('data: {"error"') == 1 and "[DONE]" not in raw


@pytest.mark.parametrize("refusing", [fails(400, "bad tool"), fails(422, "no"), fails(429, "busy")])
def test_what_the_caller_did_wrong_goes_nowhere_else(pair: Pair, refusing: Any) -> None:
    pair.reply(refusing)
    with pytest.raises(openai.APIStatusError):
        pair.gate.chat("hi")
    with pytest.raises(openai.BadRequestError):
        pair.gate.chat([{"role": "nobody", "content": "hi"}])
    assert not pair.fallback.requests


def test_images_go_to_the_fallback_that_reads_them(pair: Pair) -> None:
    pair.reply(says("local"))
    parts = [{"type": "text", "text": "what is this?"}, IMAGE]
    answer = pair.gate.chat([{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "cloud"
    assert answer.headers["x-clara-fallback-reason"] == "images"
    assert pair.fallback.requests[0]["messages"][0]["content"] == parts


def test_what_does_not_fit_the_reasoner_goes_to_the_fallback_uncompacted(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path, budget=Budget(window=2000, reserve=500))
        answer = pair.gate.chat(
            "word " * 3000, reasoning_effort="low", max_tokens=9, extra_body={"top_k": 5}
        )
        assert answer.headers["x-clara-fallback-reason"] == "overflow"
        assert not pair.reasoner.requests
        (sent,) = pair.fallback.requests
        assert sent["messages"][0]["content"] == "word " * 3000
        assert sent["max_tokens"] == 9 and sent["reasoning_effort"] == "low"
        assert "top_k" not in sent  # which only local servers know


def test_the_fallback_asks_the_memory_too(pair: Pair) -> None:
    handle = pair.gate.memory.remember("the key is 4711", session="mine")
    pair.reply(fails(500))
    pair.fallback.replies = [says("", ("expand", {"handle": handle})), says("cloud")]
    chunks = pair.gate.streamed(
        "which key?", tools=[TOOL], extra_headers={"x-clara-session": "mine"}
    )
    assert text_of(chunks) == "cloud"
    assert "4711" in pair.fallback.requests[1]["messages"][-1]["content"]
    assert len(pair.reasoner.requests) and len(pair.fallback.requests) == 2


def test_earlier_reasoning_goes_to_a_fallback_that_reasons(tmp_path: Path) -> None:
    """OpenAI's API refuses such a field, DeepSeek's wants it: the latter answers with one."""
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "hm"},
        {"role": "user", "content": "c"},
    ]
    thinks = says("cloud", reasoning_content="I see")
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path / "learns", failures=10**6)
        pair.reasoner.replies = [fails(500)]
        pair.fallback.replies = [thinks, says("cloud")]
        pair.gate.chat(history)
        pair.gate.streamed(history)
        told = Pair(
            stack, tmp_path / "told", failures=10**6, fallback_remote={"wants_reasoning": True}
        )
        told.reasoner.replies = [fails(500)]
        told.gate.chat(history)
        sent = [*pair.fallback.requests, *told.fallback.requests]
    thoughts = [request["messages"][1].get("reasoning_content") for request in sent]
    assert thoughts == [None, "hm", "hm"]


def test_both_down_is_one_error(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9/v1"
    with gateway(tmp_path, nowhere, fallback=nowhere) as gate:
        with pytest.raises(openai.InternalServerError) as error:
            gate.chat("hi")
        assert error.value.status_code == 503 and "because the reasoner could not" in str(
            error.value
        )
        with pytest.raises(openai.APIError):
            gate.streamed("hi")


@pytest.mark.alone
def test_without_a_fallback_each_failure_has_its_status(tmp_path: Path) -> None:
    upstream = Upstream(hangs)
    with upstream.running() as url, gateway(tmp_path, url, timeout=0.3) as gate:
        with pytest.raises(openai.InternalServerError) as error:
            gate.chat("hi")
        assert error.value.status_code == 504
        assert error.value.response.headers["x-should-retry"] == "false"


@pytest.mark.alone
def test_the_breaker_leaves_a_dead_reasoner_alone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pair = Pair(stack, tmp_path, failures=2, pause=0.4)
        pair.reply(fails(500))
        for number in range(4):
            pair.gate.chat(f"hi {number}")
        assert len(pair.reasoner.requests) == 2
        assert pair.gate.status()["gateway"]["breaker"] == "open"
        metrics = pair.gate.http.get("/metrics").text
        assert 'clara_fallbacks_total{reason="breaker"} 2.0' in metrics
        assert "clara_breaker_open 1.0" in metrics
        time.sleep(0.45)
        pair.reasoner.replies = [says("local")]
        assert pair.gate.chat("hello").choices[0].message.content == "local"
        assert pair.gate.status()["gateway"]["breaker"] == "closed"


def test_the_breaker_lets_one_request_try() -> None:
    now = [0.0]
    breaker = Breaker(2, 10.0, lambda: now[0])
    assert breaker.admit()
    breaker.record_failure()
    breaker.record_success()
    breaker.record_failure()
    assert breaker.admit()  # not twice in a row
    breaker.record_failure()
    assert not breaker.admit() and breaker.state == "open"
    now[0] = 10.0
    assert breaker.admit() and not breaker.admit()
    breaker.record_failure()
    assert not breaker.admit()
    now[0] = 20.0
    assert breaker.admit()
    breaker.record_nothing()  # its client left: somebody else may try
    assert breaker.admit()
    breaker.record_success()
    assert breaker.state == "closed" and breaker.admit() and breaker.admit()


def test_keys_are_not_shown() -> None:
    remote = serve.Remote("http://localhost/v1", key="secret-key")
    settings = serve.Settings(reasoner=remote, token="a-token-of-16-characters")
    assert "secret" not in repr(settings) and "a-token" not in repr(settings)
