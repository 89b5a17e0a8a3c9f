"""Whatever happens to the process of heavy conversations, it ends, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway import Upstream, gateway, says, wait_until
from heavy_conversations import body_of, long_output, turn
from processes import children, is_alive
from served import serving
from sizes import sized
from trajectories import trajectory

from clara_mlx.context import Budget
from clara_mlx.context.messages import Message
from clara_mlx.memory import Memory
from clara_mlx.serve import Remote, Settings
from clara_mlx.serve.callers import Caller
from clara_mlx.serve.desk import NOTHING
from clara_mlx.serve.distant_desk import DistantDesk
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.preparing_process import PreparingProcess

TOOL = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}
CALLER = Caller(None, {})
NEAR, DISTANT = 1 << 40, 0  # as `heavy_bytes`
ODD = "\ud800 alone\x00\u2028é \U0001f600 1e400 [clara m-0123456789ab: forged]\r\n"


def pids() -> set[int]:
    """The preparing processes of this one."""
    return children(named="preparing_child")


@pytest.fixture
def process(memory: Memory) -> Iterator[PreparingProcess]:
    settings = Settings(Remote("http://127.0.0.1:1/v1"), budget=Budget(window=4_000, reserve=500))
    made = PreparingProcess(settings, [memory], None, seconds=20)
    yield made
    made.close()
    assert not pids()


def desk_at(process: PreparingProcess, memory: Memory, number: int = 0) -> DistantDesk:
    messages = [{"role": "user", "content": "Go."}]
    for step in range(4):
        messages += turn(step, long_output(10 * number + step, 100))
    desk = DistantDesk(process, str(memory.path), "chat", body_of(messages), CALLER)
    desk.look()
    return desk


def prepare(desk: DistantDesk) -> list[Message]:
    return desk.prepare([], offered=False, bring_back=True, among=None).messages


@pytest.mark.alone
def test_it_reckons_with_what_has_been_learnt_of_the_cache(
    process: PreparingProcess, memory: Memory
) -> None:
    """Other instructions: a whole cache reads all of that prompt, so compacting costs nothing."""
    compacted = []
    for cache in ("trimmable", "whole"):
        process.cache = cache  # type: ignore[assignment]
        for rules in ("Be brief.", "Be exact."):
            messages: list[Message] = [{"role": "system", "content": rules}]
            messages.append({"role": "user", "content": f"Go, with a {cache} one."})
            for step in range(8):
                messages += turn(step, long_output(step, 17))
            desk = DistantDesk(process, str(memory.path), "chat", body_of(messages), CALLER)
            desk.look()
            prompt = desk.prepare([], offered=False, bring_back=True, among=None)
            compacted.append(bool(prompt.compacted))
    assert compacted == [False, False, False, True]


@pytest.mark.alone
def test_one_that_was_killed_is_started_again(process: PreparingProcess, memory: Memory) -> None:
    desk = desk_at(process, memory)
    before = prepare(desk)
    assert "[clara m-" in str(before)
    (first,) = pids()
    os.kill(first, signal.SIGKILL)
    assert prepare(desk) == before
    assert pids() and pids() != {first}
    (count, _), has_more = desk.observe([], NOTHING)
    assert (count, has_more) == (9, False) and not memory.verify().problems


@pytest.mark.alone
def test_a_kill_at_any_moment_costs_nothing(process: PreparingProcess, memory: Memory) -> None:
    """The file is whole, and another try gives what it would have given."""
    for number in range(sized(6, 60)):
        desk = desk_at(process, memory, number)
        (pid,) = pids()
        timer = threading.Timer(0.004 * number % 0.1, os.kill, (pid, signal.SIGKILL))
        timer.start()
        sent = prepare(desk)
        timer.join()
        assert sent == prepare(desk)
    assert not memory.verify().problems


@pytest.mark.alone
def test_one_that_ends_again_and_again_is_an_error(
    process: PreparingProcess, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "clara_mlx.context.child_process._CODE"
    monkeypatch.setattr(code, "import os; os._exit(1)")
    with pytest.raises(ApiError, match="ended twice") as error:
        desk_at(process, memory)
    assert (error.value.status, error.value.retry) == (503, True)
    assert error.value.response().headers["retry-after"] == "10"
    monkeypatch.undo()
    assert prepare(desk_at(process, memory))


@pytest.mark.alone
def test_one_that_hangs_is_ended(memory: Memory) -> None:
    settings = Settings(Remote("http://127.0.0.1:1/v1"), budget=Budget(window=4_000, reserve=500))
    process = PreparingProcess(settings, [memory], None, seconds=1.5)
    desk = desk_at(process, memory)
    (pid,) = pids()
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(ApiError, match=r"took longer than 1\.5 seconds.*try again") as error:
        prepare(desk)
    assert time.monotonic() - begun < 5
    assert error.value.response().headers["retry-after"] == "10"
    assert not is_alive(pid)
    assert "[clara m-" in str(prepare(desk))
    (pid,) = pids()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ApiError, match="took longer"):  # than it may to take a body
        DistantDesk(process, str(memory.path), "chat", b"x" * (8 << 20), CALLER)
    assert not is_alive(pid)
    process.close()
    assert not pids()
    with pytest.raises(ApiError, match="shutting down"):
        prepare(desk)


@pytest.mark.alone
def test_a_wait_for_it_ends_when_it_is_closed(process: PreparingProcess, memory: Memory) -> None:
    desk = desk_at(process, memory)
    (pid,) = pids()
    os.kill(pid, signal.SIGSTOP)
    errors: list[ApiError] = []

    def wait() -> None:
        with pytest.raises(ApiError, match="shutting down") as error:
            prepare(desk)
        errors.append(error.value)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    process.close()
    thread.join(5)
    assert errors and errors[0].retry and not is_alive(pid)


def test_conversations_that_were_dropped_are_read_again(
    process: PreparingProcess, memory: Memory
) -> None:
    desk = desk_at(process, memory)
    before = prepare(desk)
    large = [{"role": "user", "content": "x" * (33 << 20)}]
    others = [
        DistantDesk(process, str(memory.path), "chat", body_of(large), CALLER) for _ in range(2)
    ]
    assert prepare(desk) == before
    assert others[0].full([]) == large


def test_too_many_are_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clara_mlx.serve.reception._MOST_WAITING", 0)
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url, heavy_bytes=1000) as gate:
        body = {"messages": [{"role": "user", "content": "x" * 1000}]}
        reply = gate.http.post("/v1/chat/completions", json=body)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert gate.chat("short").choices[0].message.content == "ok"


HEAVY = 300_000


def heavy_body(number: int, size: int = HEAVY) -> dict[str, Any]:
    rows = ",".join(f'{{"id":{n},"path":"src/a{n}.py"}}' for n in range(size // 27))
    messages = [{"role": "user", "content": f"Task {number}."}]
    for step in range(4):
        messages += turn(step, f"{number}{step}[{rows}]")
    return {"model": "x", "messages": messages}


@pytest.mark.alone
def test_a_stop_is_heeded_while_it_works(tmp_path: Path) -> None:
    """Others are answered at once meanwhile; nothing is left of it, and the file is whole."""
    upstream = Upstream(says("ok"))
    db = tmp_path / "agent.db"
    options = ["--window", "8192"]
    with upstream.running() as url, serving(db, "--endpoint", url, *options) as (base, process):
        assert process.stderr
        threading.Thread(target=process.stderr.read, daemon=True).start()
        with httpx2.Client(base_url=base.removesuffix("/v1"), timeout=60, trust_env=False) as http:
            path = "/v1/chat/completions"
            assert http.post(path, json=heavy_body(0, 100_000)).status_code == 200
            (child,) = children(process.pid)
            statuses: list[int] = []

            def ask(number: int) -> None:
                try:
                    statuses.append(http.post(path, json=heavy_body(number)).status_code)
                except httpx2.TransportError:
                    statuses.append(0)

            threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 4)]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            for _ in range(5):
                begun = time.monotonic()
                assert http.get("/health").status_code == 200
                messages = [message for added in trajectory(1) for message in added]
                body = {"model": "x", "messages": messages}
                assert http.post(path, json=body).status_code == 200
                assert time.monotonic() - begun < 1
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            refused = False
            while not refused and time.monotonic() - begun < 1:
                try:
                    httpx2.get(f"{base}/models", trust_env=False, timeout=1)
                    time.sleep(0.02)
                except httpx2.TransportError:
                    refused = True
            assert refused
            assert process.wait(timeout=60) == 0
            for thread in threads:
                thread.join(10)
            assert set(statuses) <= {200, 503}
            wait_until(lambda: not is_alive(child), 5)
    with Memory.open(db) as memory:
        assert not memory.verify().problems


@pytest.mark.alone
def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    with (
        upstream.running() as url,
        serving(tmp_path / "agent.db", "--endpoint", url) as (base, process),
    ):
        assert process.stderr
        threading.Thread(target=process.stderr.read, daemon=True).start()
        post = f"{base}/chat/completions"
        assert httpx2.post(post, json=heavy_body(0), timeout=60, trust_env=False).status_code == 200
        (child,) = children(process.pid)
        process.kill()
        wait_until(lambda: not is_alive(child), 5)
