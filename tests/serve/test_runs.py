"""Retries share an answer, and an answer outlives the client that left."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, Upstream, chunk, gateway, says, text_of, wait_until
from simulated_model import SimulatedModel
from starlette.responses import StreamingResponse

from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.runs import Run, Runs

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def answers() -> threading.Event:
    """Set when the reasoner may answer."""
    return threading.Event()


@pytest.fixture
def upstream(answers: threading.Event) -> Upstream:
    return Upstream(says("once", wait=answers))


@pytest.fixture
def gate(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    with upstream.running() as url, gateway(tmp_path, url, patience=0.05) as made:
        yield made


def ask_and_leave(gate: Gateway, upstream: Upstream, body: dict[str, Any]) -> None:
    """Send a request, and close the connection when the reasoner has been asked."""
    before = len(upstream.requests)
    host, port = gate.url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + content)
        wait_until(lambda: len(upstream.requests) > before)
    let_it_notice(gate)


def let_it_notice(gate: Gateway) -> None:
    """Give the gateway the time of some requests to see that a connection is closed."""
    for _ in range(5):
        gate.http.get("/health")


def answers_running(gate: Gateway) -> int:
    return int(gate.status()["gateway"]["answers_running"])


@pytest.mark.parametrize("stream", [False, True])
def test_identical_requests_share_one_answer(
    gate: Gateway, upstream: Upstream, answers: threading.Event, stream: bool
) -> None:
    def ask(_: int) -> str:
        if stream:
            return text_of(gate.streamed("hi", temperature=0))
        return str(gate.chat("hi", temperature=0).choices[0].message.content)

    with ThreadPoolExecutor(4) as pool:
        texts = pool.map(ask, range(4))
        wait_until(lambda: "clara_coalesced_total 3.0" in gate.http.get("/metrics").text)
        answers.set()
        assert set(texts) == {"once"}
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}])
def test_samples_are_not_shared_but_their_retries_are(
    gate: Gateway, upstream: Upstream, answers: threading.Event, options: dict[str, Any]
) -> None:
    """Without a temperature, too: every server has one of its own."""

    def ask(retry: int) -> None:
        headers = {"x-stainless-retry-count": str(retry)}
        gate.chat("hi", extra_headers=headers, **options)

    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, 0), pool.submit(ask, 0)]
        wait_until(lambda: len(upstream.requests) == 2)
        asked.append(pool.submit(ask, 1))
        wait_until(lambda: "clara_coalesced_total 1.0" in gate.http.get("/metrics").text)
        answers.set()
        for one in asked:
            one.result()
    assert len(upstream.requests) == 2


def test_a_retry_gets_what_its_first_try_started(
    gate: Gateway, upstream: Upstream, answers: threading.Event
) -> None:
    def ask(body: dict[str, Any]) -> int:
        return gate.http.post("/v1/chat/completions", json=body).status_code

    ask_and_leave(gate, upstream, BODY)
    with ThreadPoolExecutor(1) as pool:
        retry = pool.submit(ask, BODY)
        wait_until(lambda: "clara_coalesced_total 1.0" in gate.http.get("/metrics").text)
        answers.set()
        assert retry.result() == 200
    answers.clear()
    ask_and_leave(gate, upstream, BODY | {"seed": 1})
    answers.set()
    wait_until(lambda: answers_running(gate) == 0)  # it has been answered meanwhile, to nobody
    assert ask(BODY | {"seed": 1}) == 200
    assert len(upstream.requests) == 2 and upstream.left == 0
    # What was delivered is not given a second time.
    ask(BODY | {"seed": 1})
    assert len(upstream.requests) == 3


def test_a_stream_goes_on_without_its_client(
    gate: Gateway, upstream: Upstream, answers: threading.Event
) -> None:
    body = BODY | {"stream": True}
    with gate.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_raw())
    let_it_notice(gate)
    answers.set()
    assert text_of(gate.streamed("other")) == "once"
    raw = gate.http.post("/v1/chat/completions", json=body).text
    assert raw.endswith("data: [DONE]\n\n") and len(upstream.requests) == 2
    assert upstream.left == 0


def test_whoever_stops_a_stream_gets_another_answer(tmp_path: Path) -> None:
    """And the reasoner is free at once: the next message would have to wait for it."""
    ended: list[int] = []

    async def goes_on(body: dict[str, Any]) -> StreamingResponse:
        number = len(upstream.requests)

        async def pieces() -> AsyncIterator[str]:
            try:
                for word in range(10_000):
                    text = f"answer {number}, word {word}. "
                    yield f"data: {json.dumps(chunk({'content': text}))}\n\n"
                    await asyncio.sleep(0.005)
            finally:
                ended.append(number)

        return StreamingResponse(pieces(), media_type="text/event-stream")

    upstream = Upstream(goes_on)
    body = BODY | {"stream": True, "temperature": 0}
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        for number in (1, 2):
            with gate.http.stream("POST", "/v1/chat/completions", json=body) as answer:
                first = next(answer.iter_lines())
            assert f"answer {number}, word 0" in first
            if number == 2:  # at the first time the same is asked again without any pause
                wait_until(lambda: answers_running(gate) == 0 and sorted(ended) == [1, 2])
    assert len(upstream.requests) == 2


def test_an_answer_without_listeners_ends(tmp_path: Path, upstream: Upstream) -> None:
    with upstream.running() as url, gateway(tmp_path, url, linger=0.1) as gate:
        ask_and_leave(gate, upstream, BODY)
        wait_until(lambda: upstream.left == 1)
        wait_until(lambda: answers_running(gate) == 0)


def test_ending_lets_answers_finish(
    tmp_path: Path, upstream: Upstream, answers: threading.Event
) -> None:
    finished: list[Any] = []
    with upstream.running() as url:
        with gateway(tmp_path, url) as gate:
            asking = threading.Thread(target=lambda: finished.append(gate.chat("bye")))
            asking.start()
            wait_until(lambda: upstream.requests)
            gate.http.post("/v1/memory/remember", json={"text": "the last word"})
            threading.Timer(0.3, answers.set).start()  # the gateway begins to end before
        asking.join()
        assert finished[0].choices[0].message.content == "once"
        with gateway(tmp_path, url) as gate:
            assert gate.status()["memory"]["memories"] == 1


def test_runs_alone() -> None:
    async def scenario() -> None:
        runs = Runs(0.05)
        was_silent = asyncio.Event()

        async def work(run: Run) -> None:
            run.send(b"a")
            await was_silent.wait()
            run.send(b"b")

        async def broken(run: Run) -> None:
            raise ValueError("a mistake of ours")

        run = runs.join(b"1", work, always=False)
        same = runs.join(b"1", work, always=True)
        other = runs.join(b"1", work, always=False)
        assert run is same and run is not other and run.listeners == 2
        got = []
        async for piece in run.follow(0.005):
            if piece is None:
                was_silent.set()
            else:
                got.append(piece)
        assert got == [b"a", b"b"] and was_silent.is_set()
        failed = runs.join(b"2", broken, always=False)
        assert [piece async for piece in failed.follow()] == []
        assert isinstance(failed.error, ApiError) and "mistake" not in str(failed.error)
        runs.leave(failed)
        assert runs.join(b"2", work, always=True) is not failed
        await runs.close(1)
        assert len(runs) == 0

    asyncio.run(scenario())


def test_the_memory_knows_when_a_reasoner_of_this_machine_answers(
    tmp_path: Path, upstream: Upstream, answers: threading.Event
) -> None:
    with (
        upstream.running() as url,
        gateway(tmp_path, url, clara=SimulatedModel()) as made,
    ):
        thread = made.memory.model_thread
        assert thread and not thread.is_machine_wanted()
        asking = threading.Thread(target=made.chat, args=("hi",))
        asking.start()
        wait_until(thread.is_machine_wanted)
        answers.set()
        asking.join(30)
        wait_until(lambda: not thread.is_machine_wanted())


def test_a_reasoner_elsewhere_has_a_machine_of_its_own(tmp_path: Path) -> None:
    with gateway(tmp_path, "http://192.0.2.1/v1", clara=SimulatedModel(), timeout=1) as made:
        post = partial(made.http.post, "/v1/chat/completions", json=BODY)
        asking = threading.Thread(target=post)
        asking.start()
        wait_until(lambda: made.status()["gateway"]["answers_running"])
        assert made.memory.model_thread and not made.memory.model_thread.is_machine_wanted()
        asking.join(30)
