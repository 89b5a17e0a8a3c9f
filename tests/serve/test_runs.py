"""Retries share an answer, and an answer outlives the client that left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway import Gateway, Upstream, gateway, says, text_of

from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.runs import Run, Runs

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(says("once", wait=0.6))


@pytest.fixture
def gate(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    with upstream.running() as url, gateway(tmp_path, url, patience=0.05) as made:
        yield made


def leave(gate: Gateway, body: dict[str, Any]) -> None:
    with pytest.raises(httpx2.TimeoutException):
        gate.http.post("/v1/chat/completions", json=body, timeout=0.25)


@pytest.mark.parametrize("stream", [False, True])
def test_identical_requests_share_one_answer(
    gate: Gateway, upstream: Upstream, stream: bool
) -> None:
    def ask(_: int) -> str:
        if stream:
            return text_of(gate.streamed("hi"))
        return str(gate.chat("hi").choices[0].message.content)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {"once"}
    assert len(upstream.requests) == 1
    assert "clara_coalesced_total 3.0" in gate.http.get("/metrics").text


def test_samples_are_not_shared_but_their_retries_are(gate: Gateway, upstream: Upstream) -> None:
    def ask(retry: int) -> None:
        headers = {"x-stainless-retry-count": str(retry)}
        gate.chat("hi", temperature=1.0, extra_headers=headers)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, [0, 0]))
        assert len(upstream.requests) == 2
        list(pool.map(ask, [0, 1]))
    assert len(upstream.requests) <= 4


def test_a_retry_gets_what_its_first_try_started(gate: Gateway, upstream: Upstream) -> None:
    leave(gate, BODY)
    assert gate.http.post("/v1/chat/completions", json=BODY).status_code == 200
    leave(gate, BODY | {"seed": 1})
    time.sleep(0.7)  # it has been answered meanwhile, to nobody
    assert gate.http.post("/v1/chat/completions", json=BODY | {"seed": 1}).status_code == 200
    assert len(upstream.requests) == 2 and upstream.left == 0
    # What was delivered is not given a second time.
    gate.http.post("/v1/chat/completions", json=BODY | {"seed": 1})
    assert len(upstream.requests) == 3


def test_a_stream_goes_on_without_its_client(gate: Gateway, upstream: Upstream) -> None:
    body = BODY | {"stream": True}
    with gate.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_raw())
    assert text_of(gate.streamed("other")) == "once"
    raw = gate.http.post("/v1/chat/completions", json=body).text
    assert raw.endswith("data: [DONE]\n\n") and len(upstream.requests) == 2
    assert upstream.left == 0


def test_nobody_is_waited_for_forever(tmp_path: Path) -> None:
    upstream = Upstream(says("late", wait=20))
    with upstream.running() as url, gateway(tmp_path, url, linger=0.3) as gate:
        leave(gate, BODY)
        for _ in range(100):
            if upstream.left:
                break
            time.sleep(0.05)
        assert upstream.left == 1
        assert gate.status()["gateway"]["answers_running"] == 0


def test_ending_lets_answers_finish(tmp_path: Path, upstream: Upstream) -> None:
    answers: list[Any] = []
    with upstream.running() as url:
        with gateway(tmp_path, url) as gate:
            asking = threading.Thread(target=lambda: answers.append(gate.chat("bye")))
            asking.start()
            while not upstream.requests:
                time.sleep(0.01)
            gate.http.post("/v1/memory/remember", json={"text": "the last word"})
        asking.join()
        assert answers[0].choices[0].message.content == "once"
        with gateway(tmp_path, url) as gate:
            assert gate.status()["memory"]["memories"] == 1


def test_runs_alone() -> None:
    async def scenario() -> None:
        runs = Runs(0.05)

        async def work(run: Run) -> None:
            run.send(b"a")
            await asyncio.sleep(0.02)
            run.send(b"b")

        async def broken(run: Run) -> None:
            raise ValueError("a mistake of ours")

        run = runs.join(b"1", work, always=False)
        same = runs.join(b"1", work, always=True)
        other = runs.join(b"1", work, always=False)
        assert run is same and run is not other and run.listeners == 2
        got = [piece async for piece in run.follow(0.005)]
        assert [piece for piece in got if piece] == [b"a", b"b"] and None in got
        failed = runs.join(b"2", broken, always=False)
        assert [piece async for piece in failed.follow()] == []
        assert isinstance(failed.error, ApiError) and "mistake" not in str(failed.error)
        runs.leave(failed)
        assert runs.join(b"2", work, always=True) is not failed
        await runs.close(1)
        assert len(runs) == 0

    asyncio.run(scenario())
