"""Hostile input gets 4xx and loses nothing; strangers get nothing at all."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway import Gateway, Upstream, gateway, says
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clara_mlx.errors import ClaraError
from clara_mlx.serve import Remote, Settings, bodies
from clara_mlx.serve.settings import is_loopback

TOKEN = "0123456789abcdef0123456789abcdef"
POSTS = ["/v1/chat/completions"] + [
    f"/v1/memory/{name}" for name in ("remember", "recall", "ask", "forget")
]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstream = Upstream(says("ok"))
    path = tmp_path_factory.mktemp("gate")
    with (
        upstream.running() as url,
        gateway(path, url, max_body_bytes=20_000, body_seconds=0.5) as made,
    ):
        made.memory.remember("a treasure")
        yield made
        # Whatever was sent, nothing is lost and the gateway answers.
        assert not made.memory.verify().problems
        assert made.http.post("/v1/memory/recall", json={"query": "treasure"}).json()["hits"]
        assert made.chat("hello").choices[0].message.content == "ok"


def raw(gate: Gateway, head: str, body: bytes = b"", *, read: bool = True) -> bytes:
    """Bytes over a socket, and what comes back until the connection ends or is silent."""
    host, port = gate.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + body)
        received = b""
        while read and b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
        return received


@pytest.mark.parametrize("path", POSTS)
def test_what_is_not_a_request_is_refused(gate: Gateway, path: str) -> None:
    deep = b'{"messages": ' + b"[" * 9000 + b"]" * 9000 + b"}"
    bodies = [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe{}", b'{"text": NaN}', deep, b"{}"]
    bodies += [b'{"messages": [{"role": "user", "content": "\x00"}]}', b'{"n": 1e999}', b"1" * 5000]
    for body in bodies:
        answer = gate.http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (path, body[:50], answer.text)
        assert answer.json()["error"]["message"]
    assert gate.http.post(path, content=b"{}").status_code == 415
    assert gate.http.get(path).status_code == 405
    large = b'{"text": "' + b"x" * 30_000 + b'"}'
    answer = gate.http.post(path, content=large, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.alone
def test_endless_and_slow_bodies_end(gate: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_DRAIN_SECONDS", 0.2)

    def endless() -> Iterator[bytes]:
        yield b'{"text": "'
        while True:
            yield b"x" * 1000

    # Also if the gateway reads nothing of it: from a stranger, or for a path that does not exist.
    for path, host, status in [
        ("/v1/memory/remember", None, 413),
        ("/v1/memory/remember", "evil.example", 421),
        ("/nowhere", None, 404),
    ]:
        headers = {"content-type": "application/json"} | ({"host": host} if host else {})
        begun = time.monotonic()
        with suppress(httpx2.TransportError):  # the connection was closed while it still sent
            assert gate.http.post(path, content=endless(), headers=headers).status_code == status
        assert time.monotonic() - begun < 10
    host = gate.url.removeprefix("http://")
    head = (
        f"POST /v1/memory/remember HTTP/1.1\nHost: {host}\nContent-Type: application/json\n"
        "Content-Length: 100\n\n"
    )
    begun = time.monotonic()
    assert b" 408 " in raw(gate, head, b'{"te')
    assert time.monotonic() - begun < 5
    raw(gate, head, b'{"te', read=False)  # the client leaves in the middle
    assert b" 400 " in raw(gate, "GARBAGE\n\n") and b" 400 " in raw(gate, "GET / HTTP/9\n\n")


def test_a_request_of_two_lengths_is_the_last_of_its_connection(gate: Gateway) -> None:
    """A proxy before the gateway might see two requests where the gateway sees one."""
    host = gate.url.removeprefix("http://")
    head = f"POST /v1/memory/recall HTTP/1.1\nHost: {host}\nContent-Type: application/json\n"
    lengths = ["Content-Length: 5\n", "Transfer-Encoding: chunked\n"]
    second = f"GET /health HTTP/1.1\nHost: {host}\n\n".replace("\n", "\r\n").encode()
    for both in (lengths, lengths[::-1]):
        chunks = b'd\r\n{"query":"x"}\r\n0\r\n\r\n'
        address, port = host.split(":")
        with socket.create_connection((address, int(port)), timeout=10) as connection:
            text = head + "".join(both) + "\n"
            connection.sendall(text.replace("\n", "\r\n").encode() + chunks + second)
            received = connection.makefile("rb").read()  # until the gateway ends it
        assert received.startswith(b"HTTP/1.1 400 ") and received.count(b"HTTP/1.1 ") == 1


def test_a_long_header_is_refused(gate: Gateway) -> None:
    with suppress(httpx2.TransportError):  # the connection was closed while it still sent
        assert gate.http.get("/health", headers={"x": "y" * 2_000_000}).status_code == 400


@pytest.mark.parametrize(
    "handle",
    [
        "m-0000000000",
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e",
        "x" * 3000,
        "m-1%00",
        "%ff%fe",
        "' OR 1=1 --",
        "*",
        "m-%25",
    ],
)
def test_forged_handles_find_nothing(gate: Gateway, handle: str) -> None:
    assert gate.http.get(f"/v1/memory/original/{handle}").status_code == 404
    answer = gate.http.post("/v1/memory/forget", json={"handle": handle})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "path", ["/v1/memory/original/../../x", "/../etc/passwd", "//", "/v2", "/docs"]
)
def test_other_paths_lead_nowhere(gate: Gateway, path: str) -> None:
    host = gate.url.removeprefix("http://")
    assert b" 404 " in raw(gate, f"GET {path} HTTP/1.1\nHost: {host}\nConnection: close\n\n")


def test_nothing_is_forgotten_by_mistake(gate: Gateway) -> None:
    handle = gate.memory.remember("x")
    for body in (
        {},
        {"where": {}},
        {"where": []},
        {"handle": None},
        {"handle": handle, "where": {"source": "x"}},
        {"where": {"after": True}},
        {"where": {"before": "3000-01-01"}},
        {"where": {"source": None, "session": 5}},
        {"where": {"a\0b": None}},
        {"where": {str(number): 1 for number in range(101)}},
    ):
        answer = gate.http.post("/v1/memory/forget", json=body)
        assert answer.status_code == 400 and answer.headers["x-should-retry"] == "false"
    handles = [f"m-{number}" for number in range(2000)]
    answer = gate.http.post("/v1/memory/forget", json={"where": {"handle": handles}})
    assert answer.json() == {"forgotten": 0}
    assert gate.memory.original(handle) == "x"


def test_messages_of_the_wrong_shape_are_refused(gate: Gateway) -> None:
    user = {"role": "user", "content": "x"}
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    wrong: list[Any] = [
        [],
        "x",
        [1],
        [{}],
        [{"role": "user", "content": 1}],
        [{"role": "user", "content": [1]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": "x", "tool_calls": [call]}],
        [{"role": "assistant", "tool_calls": {}}],
        [{"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]}],
        [{"role": "assistant", "tool_calls": [{**call, "id": 1}]}],
        [{"role": "tool", "content": "x"}],
    ]
    for messages in wrong:
        answer = gate.http.post("/v1/chat/completions", json={"messages": messages})
        assert answer.status_code == 400, messages
        assert answer.json()["error"]["param"].startswith("messages")
    for field, value in [
        ("stream", "yes"),
        ("stream_options", []),
        ("tools", {}),
        ("tools", [1]),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("temperature", "hot"),
        ("temperature", -1),
        ("stop", [1]),
    ]:
        body = {"messages": [user], field: value}
        assert gate.http.post("/v1/chat/completions", json=body).status_code == 400, field


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"])},
    optional={
        "content": json_values,
        "tool_calls": json_values
        | st.lists(
            st.fixed_dictionaries(
                {
                    "id": json_values | st.text(max_size=3),
                    "function": st.fixed_dictionaries(
                        {"name": st.text(max_size=5)}, optional={"arguments": json_values}
                    ),
                }
            ),
            max_size=2,
        ),
        "tool_call_id": json_values,
        "reasoning": json_values,
    },
)


@given(body=st.fixed_dictionaries({"messages": st.lists(messages, max_size=4)}, optional={
    "tools": json_values, "tool_choice": json_values, "stop": json_values, "n": json_values,
    "response_format": json_values, "parallel_tool_calls": json_values, "max_tokens": json_values,
}))  # fmt: skip
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_json_is_answered_or_refused(gate: Gateway, body: Any) -> None:
    content = json.dumps(body).encode()
    answer = gate.http.post(
        "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (200, 400, 413), answer.text


def test_only_known_names_and_pages_are_served(gate: Gateway) -> None:
    body = {"query": "treasure"}
    for host in ("evil.example", "evil.example:8100", "127.0.0.1.evil.example", "", "[", "a@b"):
        answer = gate.http.post("/v1/memory/recall", json=body, headers={"host": host})
        assert answer.status_code == 421, host
        assert gate.http.post("/mcp", json={}, headers={"host": host}).status_code == 421
    for origin in ("https://evil.example", "null", "", "http://localhost.evil.example", "file://"):
        for path in ("/v1/memory/recall", "/mcp"):
            answer = gate.http.post(path, json=body, headers={"origin": origin})
            assert answer.status_code == 403, origin
            assert not [name for name in answer.headers if name.startswith("access-control")]
    for good in ("http://localhost:3000", "http://127.0.0.1", "http://[::1]:9"):
        answer = gate.http.post("/v1/memory/recall", json=body, headers={"origin": good})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert gate.http.options("/v1/memory/recall", headers=asks).status_code == 403


def test_a_token_is_needed_where_one_is_set(tmp_path: Path) -> None:
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path, url, token=TOKEN, allow_hosts=("mac.local",)) as gate,
    ):
        assert gate.chat("hi").choices[0].message.content == "ok"
        assert gate.http.get("/metrics", headers={"host": "mac.local:1"}).status_code == 200
        wrong = [
            "",
            TOKEN,
            "Bearer",
            f"Bearer {TOKEN[:-1]}",
            f"Bearer {TOKEN}x",
            "Basic abc",
            "Bearer \xff",
        ]
        for path in ("/metrics", "/v1/models", "/v1/memory/status", "/mcp", "/v1/x"):
            for given_token in wrong:
                headers = [(b"authorization", given_token.encode("latin-1"))]
                answer = gate.http.get(path, headers=headers)
                assert answer.status_code == 401, (path, given_token)
                assert answer.headers["www-authenticate"] == "Bearer"
        assert gate.http.get("/health", headers={"authorization": ""}).status_code == 200


def test_other_addresses_need_a_token() -> None:
    remote = Remote("http://localhost:1/v1")
    for host in ("0.0.0.0", "192.168.1.2", "::", "mac.local"):
        with pytest.raises(ClaraError, match="CLARA_MLX_TOKEN"):
            Settings(reasoner=remote, host=host)
        Settings(reasoner=remote, host=host, token=TOKEN)
    with pytest.raises(ClaraError, match="too short"):
        Settings(reasoner=remote, token="short")
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST."):
        assert is_loopback(host)
        Settings(reasoner=remote, host=host)
    with pytest.raises(ClaraError, match="not the URL"):
        Remote("localhost:8080")
