"""An endpoint that sends too much, too slowly, or what is strange stops nobody."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, Reply, Upstream, chunk, gateway, says
from sizes import sized
from starlette.responses import Response, StreamingResponse

from clara_mlx.serve import upstream
from clara_mlx.serve.json_values import MOST_VALUES_OF_ANSWER

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def sends(content: bytes, status: int = 200, **headers: str) -> Reply:
    async def reply(body: dict[str, Any]) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(content, status, {"content-type": "application/json"} | named)

    return reply


def completion(text: str = "ok", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], **more}


def drips(content: bytes, pause: float, kind: str = "application/json", times: int = 1) -> Reply:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(times):
            for byte in content:
                yield bytes([byte])
                await asyncio.sleep(pause)

    async def reply(body: dict[str, Any]) -> Response:
        return StreamingResponse(pieces(), media_type=kind)

    return reply


def floods(unit: bytes, megabytes: int) -> Reply:
    async def pieces() -> AsyncIterator[bytes]:
        part = unit * ((1 << 16) // len(unit))
        for _ in range(megabytes << 4):
            yield part

    async def reply(body: dict[str, Any]) -> Response:
        return StreamingResponse(pieces(), media_type="text/event-stream")

    return reply


def ask(path: Path, reply: Reply, *, stream: bool = False, timeout: float = 30) -> Any:
    with Upstream(reply).running() as url, gateway(path, url, timeout=timeout) as gate:
        answer = gate.http.post(CHAT, json=ASK | {"stream": stream})
        check_others(gate)
    return answer


def check_others(gate: Gateway) -> None:
    assert gate.http.get("/health").status_code == 200
    assert "internal_error" not in gate.http.get("/metrics").text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [200, 400])
def test_a_compressed_answer_is_not_unpacked(tmp_path: Path, stream: bool, status: int) -> None:
    packed = gzip.compress(b" " * sized(30_000_000, 300_000_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind = "text/event-stream" if stream else "application/json"
    reply = sends(packed, status, content_encoding="gzip", content_type=kind)
    answer = ask(tmp_path, reply, stream=stream)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert answer.status_code == 502 and "'gzip', though it was asked not to" in answer.text
    assert grown < 20_000  # kB


def test_no_endpoint_is_asked_for_compressed_answers(tmp_path: Path) -> None:
    reasoner = Upstream(says("ok"))
    with reasoner.running() as url, gateway(tmp_path, url) as gate:
        gate.chat("hi")
    assert reasoner.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("unit", [b"x", b"data: {}\n\n", b":\n", b"\n", b"data: x\n", b"[],"])
def test_an_answer_without_an_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, unit: bytes
) -> None:
    monkeypatch.setattr(upstream, "_ANSWER_BYTES", 1 << 20)
    answer = ask(tmp_path, floods(unit, 3), stream=stream)
    assert "an answer of more than 1048576 bytes" in answer.text, answer.text[-300:]
    assert len(answer.text) < 100_000


@pytest.mark.alone
def test_an_answer_in_one_piece_has_its_time_as_a_whole(tmp_path: Path) -> None:
    begun = time.monotonic()
    slow = drips(json.dumps(completion()).encode(), 0.2)
    answer = ask(tmp_path, slow, timeout=1)
    assert answer.status_code == 504 and "took longer than 1 seconds" in answer.text
    assert time.monotonic() - begun < 8


def test_a_stream_may_take_longer_than_its_silence(tmp_path: Path) -> None:
    events = b"".join(
        b"data: " + json.dumps(one).encode() + b"\n\n"
        for one in [*[chunk({"content": "x"})] * 3, chunk({}, "stop")]
    )
    slow = drips(events + b"data: [DONE]\n\n", 0.004, "text/event-stream")
    answer = ask(tmp_path, slow, stream=True, timeout=1)
    assert answer.text.count('"content":"x"') == 3 and answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"[" + b"[]," * MOST_VALUES_OF_ANSWER + b"[]]",
        json.dumps(completion(more=1)).encode().replace(b"1}", b'{"a":' * 300 + b"1" + b"}" * 301),
        json.dumps(completion()).encode() + b"1" * 5000,
        b'{"choices": [[]]}',
        b"\xff",
    ],
)
def test_an_answer_of_odd_json_is_an_error(tmp_path: Path, content: bytes) -> None:
    assert ask(tmp_path, sends(content)).status_code == 502
    event = b"data: " + content + b"\n\n"
    answer = ask(tmp_path / "s", sends(event, content_type="text/event-stream"), stream=True)
    assert answer.status_code == 502


@pytest.mark.parametrize("error", ["x" * 900_000, {"message": "x" * 900_000}, ["x" * 900_000]])
@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_long_error_is_cut_visibly(tmp_path: Path, error: Any, status: int) -> None:
    answer = ask(tmp_path, sends(json.dumps({"error": error}).encode(), status))
    message = answer.json()["error"]["message"]
    assert 2000 < len(message) < 2200 and "... (of 900,0" in message


@pytest.mark.parametrize(
    "error",
    [
        {"message": "\ud800", "code": {"a": [1]}, "type": ["x"], "param": "y" * 10_000},
        {"message": [[[{}]]], "code": 10**400},
        {"message": "\x00\r\nx-evil: 1"},
        [1, None],
        True,
    ],
)
def test_an_odd_error_is_passed_on_as_one(tmp_path: Path, error: Any) -> None:
    answer = ask(tmp_path, sends(json.dumps({"error": error}).encode(), 400))
    assert answer.status_code == 400 and len(answer.text) < 3000
    assert "x-evil" not in answer.headers and answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("after", "passed_on"),
    [
        (b"7", "7"),
        (b"Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ("\u4e03".encode(), None),
        (b"\xff", None),
        (b"7" * 1000, None),
        (b"", None),
    ],
)
def test_a_time_to_wait_is_passed_on_if_a_header_can_hold_it(
    tmp_path: Path, after: bytes, passed_on: str | None
) -> None:
    async def reply(body: dict[str, Any]) -> Response:
        response = Response(b"{}", 429)
        response.raw_headers.append((b"retry-after", after))
        return response

    answer = ask(tmp_path, reply)
    assert answer.status_code == 429 and answer.headers.get("retry-after") == passed_on


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-5", "true", "7.5", "1e400", "NaN", '"7"'])
@pytest.mark.parametrize("stream", [False, True])
def test_odd_figures_are_not_believed(tmp_path: Path, number: str, stream: bool) -> None:
    usage = '{"prompt_tokens": N, "completion_tokens": N, "prompt_tokens_details": '
    usage = (usage + '{"cached_tokens": N}}').replace("N", number)
    if stream:
        done = json.dumps(chunk({"content": "ok"}, "stop"))
        content = f'data: {done}\n\ndata: {{"choices": [], "usage": {usage}}}\n\ndata: [DONE]\n\n'
        reply = sends(content.encode(), content_type="text/event-stream")
    else:
        reply = sends(json.dumps(completion())[:-1].encode() + f', "usage": {usage}}}'.encode())
    with Upstream(reply).running() as url, gateway(tmp_path, url) as gate:
        answer = gate.http.post(CHAT, json=ASK | {"stream": stream})
        assert answer.status_code == 200 and "ok" in answer.text
        assert "Infinity" not in answer.text and "NaN" not in answer.text
        figures = gate.status()["conversations"][0]
        assert 0 <= figures["completion_tokens"] <= 10
        assert 0 <= figures["tokens_sent"] <= 1000 and figures["cached_reported"] <= 10
