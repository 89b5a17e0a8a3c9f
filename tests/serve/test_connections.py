"""Clients that are slow, silent or many don't stop the others, and a stop ends in order."""

from __future__ import annotations

import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway import Gateway, Upstream, gateway, says, wait_until
from served import serving

from clara_mlx.serve import connections
from clara_mlx.serve.connections import most_connections, raise_file_limit
from clara_mlx.serve.log import OncePerSecond

HALF_OPEN = 1050
ASK = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LOOK_SECONDS", 0.02)


def connect(url: str) -> socket.socket:
    parts = httpx2.URL(url)
    return socket.create_connection((parts.host, parts.port or 80), timeout=20)


def get(gate: Gateway, path: str = "/health") -> bytes:
    host = gate.url.removeprefix("http://")
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def is_closed(connection: socket.socket, seconds: float = 20.0) -> bool:
    """Whether the other side closes it in time, whatever it sends before."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def taken(connection: socket.socket, pause: float = 0.0) -> int:
    """The number of bytes that come until the other side closes the connection."""
    number = 0
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 20):
            number += len(piece)
            time.sleep(pause)
    return number


@contextmanager
def many_files(number: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(number, limits[0]), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.alone
def test_half_open_connections_stop_nobody(tmp_path: Path) -> None:
    with (
        many_files(HALF_OPEN + 200),
        serving(tmp_path / "agent.db", files=1024) as (base, process),
        ExitStack() as opened,
    ):
        health = base.removesuffix("/v1") + "/health"
        with httpx2.Client(trust_env=False, timeout=20) as client:
            while client.get(health).status_code != 200:
                pass
        for number in range(HALF_OPEN):
            connection = opened.enter_context(connect(base))
            if number % 2:
                connection.sendall(b"G")
        for _ in range(3):
            begun = time.monotonic()
            assert httpx2.get(health, trust_env=False, timeout=20).status_code == 200
            assert time.monotonic() - begun < 1
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0 and time.monotonic() - begun < 5
        log = process.stderr.read() if process.stderr else ""
        assert len(log) < 5000 and "Traceback" not in log


@pytest.mark.alone
@pytest.mark.usefixtures("quick")
def test_headers_have_to_arrive_in_time(tmp_path: Path) -> None:
    answers = threading.Event()
    with (
        Upstream(says("late", wait=answers)).running() as url,
        gateway(tmp_path, url, header_seconds=0.5) as gate,
        ThreadPoolExecutor(1) as pool,
    ):
        # An answer may take longer than any header.
        waiting = pool.submit(gate.chat, "hi")
        silent = connect(gate.url)
        slow = connect(gate.url)
        kept = connect(gate.url)
        kept.sendall(get(gate))
        begun = time.monotonic()
        ended = False
        for byte in get(gate)[:-1] * 10:  # a byte is no sign of life
            try:
                slow.sendall(bytes([byte]))
            except ConnectionError:
                ended = True
                break
            time.sleep(0.05)
        assert ended and time.monotonic() - begun < 10
        assert is_closed(silent) and is_closed(kept)
        answers.set()
        assert waiting.result().choices[0].message.content == "late"


def test_the_oldest_waiting_connection_makes_room(tmp_path: Path) -> None:
    answers = threading.Event()
    upstream = Upstream(says("late", wait=answers))
    with upstream.running() as url, gateway(tmp_path, url, connections=3) as gate:
        first = connect(gate.url)
        second = connect(gate.url)
        second.sendall(b"POST /v1/memory/recall HTTP/1.1\r\n")
        third = connect(gate.url)
        # What was silent before is served, unless it was the oldest.
        third.sendall(get(gate))
        assert b"200 OK" in third.recv(65536)
        fourth = connect(gate.url)
        assert is_closed(first)
        with ThreadPoolExecutor(3) as pool:
            asked = [
                pool.submit(httpx2.post, f"{gate.url}/v1/chat/completions", json=ASK | {"seed": n})
                for n in range(3)
            ]
            wait_until(lambda: len(upstream.requests) == 3)
            assert all(map(is_closed, (second, third, fourth)))
            # All are busy, and none of them is ended for a new one.
            refused = connect(gate.url).recv(65536)
            assert refused.startswith(b"HTTP/1.1 503 ") and b"x-should-retry: true" in refused
            answers.set()
            assert {one.result().status_code for one in asked} == {200}


def test_requests_in_a_row_are_answered_in_their_order(tmp_path: Path) -> None:
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path, url, connections=2) as gate,
        connect(gate.url) as connection,
    ):
        connection.sendall(get(gate) + get(gate, "/nowhere") + get(gate) * 500)
        received = b""
        while received.count(b"HTTP/1.1 ") < 502 or not received.endswith(b"}"):
            received += connection.recv(65536)
        assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:4]] == [b"200", b"404", b"200"]


@pytest.mark.alone
@pytest.mark.usefixtures("quick")
def test_a_client_that_takes_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_STALLED_SECONDS", 0.5)
    size = 30_000_000
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path, url, header_seconds=1.0) as gate,
    ):
        ask = get(gate, f"/v1/memory/original/{gate.memory.remember('x' * size)}")
        with connect(gate.url) as stalled, connect(gate.url) as slow:
            stalled.sendall(ask)
            slow.sendall(ask)
            assert taken(slow, pause=0.02) > size  # who takes a little at a time gets everything
            time.sleep(1)
            assert taken(stalled) < size


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("patience", [0.01, 5.0])
def test_a_stop_tells_those_whose_answer_is_not_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stream: bool, patience: float
) -> None:
    never = threading.Event()
    upstream = Upstream(says("late", wait=never))
    with upstream.running() as url, ThreadPoolExecutor(1) as pool:
        with gateway(tmp_path, url, drain=0.3, patience=patience) as gate:
            post = gate.http.post
            body: dict[str, Any] = ASK | {"stream": stream}
            asked = pool.submit(post, "/v1/chat/completions", json=body)
            wait_until(lambda: upstream.requests)
            time.sleep(0.1)
            begun = time.monotonic()
        answer = asked.result()
        assert "shutting_down" in answer.text
        if not stream or patience > 1:
            assert answer.status_code == 503 and answer.headers["x-should-retry"] == "true"
        assert time.monotonic() - begun < 10
        assert not [record for record in caplog.records if record.exc_info]
        never.set()


def test_a_stop_does_not_wait_for_what_still_arrives(tmp_path: Path) -> None:
    with Upstream(says("ok")).running() as url:
        with gateway(tmp_path, url, drain=30.0) as gate:
            connection = connect(gate.url)
            connection.sendall(
                get(gate, "/v1/memory/recall").replace(b"GET", b"POST")[:-2]
                + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            idle = connect(gate.url)
            gate.http.get("/health")
            begun = time.monotonic()
        assert time.monotonic() - begun < 5
        assert is_closed(connection) and is_closed(idle)


def test_a_fault_that_repeats_is_written_once_a_second() -> None:
    now = 100.0
    quiet = OncePerSecond(lambda: now)

    def write(message: str, level: int = logging.ERROR) -> str | None:
        record = logging.LogRecord("asyncio", level, "", 0, message, ("it",), None)
        return record.getMessage() if quiet.filter(record) else None

    assert write("no file for %s") == "no file for it"
    assert [write("no file for %s") for _ in range(1000)] == [None] * 1000
    assert write("something else: %s") and write("all is well: %s", logging.INFO)
    now = 101.0
    assert write("no file for %s") == "no file for it (1000 more like this were not written)"
    now = 102.0
    assert write("no file for %s") == "no file for it"


def test_the_number_of_connections_leaves_files_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = {"now": (256, 1 << 20)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    assert most_connections(1024) == 64  # macOS, as a terminal starts it
    raise_file_limit()
    assert limits["now"][0] == 8192 and most_connections(1024) == 1024
    assert most_connections(4096) > most_connections(4096, namespaces=10) > 1024
    for hard in (1024, resource.RLIM_INFINITY):
        limits["now"] = (256, hard)
        raise_file_limit()
        assert limits["now"][0] == min(8192, hard if hard > 0 else 8192)
    limits["now"] = (10, 10)
    assert most_connections(1024) == 1


def test_no_stream_without_an_end_is_opened(tmp_path: Path) -> None:
    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        answer = gate.http.get("/mcp", headers={"accept": "text/event-stream"})
        assert answer.status_code == 405 and "POST" in answer.headers["allow"]
        upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
        assert gate.http.get("/health", headers=upgrade).status_code == 200
