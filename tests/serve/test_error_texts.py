"""Nobody learns from an error where the memory's file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, Upstream, gateway, says

from clara_mlx.context import Budget
from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.memory import Memory

ASK = {"messages": [{"role": "user", "content": "hi"}]}
JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def everything_that_answers(gate: Gateway) -> list[str]:
    """What clients read when they ask for everything."""
    rest = "/v1/memory"
    posts: list[tuple[str, Any]] = [
        (f"{rest}/remember", {"text": "x", "session": "\ud800"}),
        (f"{rest}/remember", {"text": "x", "metadata": {"a": 1 << 70}}),
        (f"{rest}/recall", {"query": "x"}),
        (f"{rest}/recall", {"query": "x", "where": {"a\x00": 1}}),
        (f"{rest}/recall", {"query": "x", "where": {"a": 1 << 70}}),
        (f"{rest}/recall", {"query": "x", "where": {"source": list(map(str, range(40_000)))}}),
        (f"{rest}/ask", {"question": "x"}),
        (f"{rest}/forget", {"handle": "m-1"}),
        (f"{rest}/forget", {"where": {"source": "x"}}),
        ("/v1/chat/completions", ASK),
    ]
    calls: list[tuple[str, Any]] = [
        ("remember", {"text": "x"}),
        ("recall", {"query": "x"}),
        ("ask_memory", {"question": "x"}),
        ("expand", {"handle": "m-1"}),
        ("expand", {"handle": "\x00"}),
    ]
    for name, arguments in calls:
        call = {"name": name, "arguments": arguments}
        posts.append(("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}))
    answers = [gate.http.post(path, content=json.dumps(body), headers=JSON) for path, body in posts]
    answers += [gate.http.get(p) for p in (f"{rest}/status", f"{rest}/original/m-1", "/v1/models")]
    assert not [answer for answer in answers if answer.status_code == 500]
    return [f"{answer.status_code} {answer.headers} {answer.text}" for answer in answers]


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_names_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    folder = tmp_path / "secret-folder"
    asks = says("", ("expand", {"handle": "m-1"}))
    upstream = Upstream(asks, says("ok"))
    with upstream.running() as url, gateway(folder, url, offer="always") as gate:
        gate.breaks = True
        handle = gate.memory.remember("a text of x")
        if failing:
            for name in ("remember", "recall", "ask", "original", "forget", "has"):

                def fail(self: Memory, *_: Any, **__: Any) -> None:
                    raise StorageFailed(f"{self.path}: the disk is full", transient=True)

                monkeypatch.setattr(Memory, name, fail)
        answers = everything_that_answers(gate)
        assert not [answer for answer in answers if "secret-folder" in answer]
        assert any("agent.db" in answer for answer in answers)  # the status may have the name
        if failing:
            assert sum("the memory's file: the disk is full" in answer for answer in answers) > 5
        assert handle and "secret-folder" not in str(upstream.requests)


def test_an_error_that_can_not_go_away_is_not_tried_again(tmp_path: Path) -> None:
    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        for where in (
            {"source": list(map(str, range(40_000)))},
            {"a\x00": 1},
            {"a": 1 << 70},
            {"after": True},
        ):
            answer = gate.http.post("/v1/memory/recall", json={"query": "x", "where": where})
            assert answer.status_code in (200, 400), (where, answer.text)
            assert answer.headers.get("x-should-retry", "false") == "false"


@pytest.mark.parametrize("error", [StoreError, StorageFailed])
def test_only_what_may_go_away_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[StoreError]
) -> None:
    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        for transient in (True, False):

            def fail(*_: Any, transient: bool = transient, **__: Any) -> None:
                raise error("it failed", transient=transient)

            monkeypatch.setattr(gate.memory, "recall", fail)
            answer = gate.http.post("/v1/memory/recall", json={"query": "x"})
            retry = transient and error is StorageFailed
            assert answer.status_code == (503 if error is StorageFailed else 400)
            assert answer.headers["x-should-retry"] == str(retry).lower()


def test_a_failed_compression_names_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        status = gate.memory.status()
        told = "can't read /Users/somebody/models/clara-7b/model.safetensors: 5/7 were read"
        gate.memory.status = lambda: type(status)(**{**vars(status), "last_error": told})  # type: ignore[method-assign]
        shown = gate.status()["memory"]
    assert (
        shown["last_error"] == "can't read (a path): 5/7 were read" and shown["path"] == "agent.db"
    )


@pytest.mark.parametrize(
    "arguments",
    ["[" * 50_000, '{"start_line": 1e999, "handle": "m-1"}', "x" * 200_000, '{"lines": NaN}', "1"],
)
def test_odd_arguments_of_the_reasoner_are_answered(
    tmp_path: Path, arguments: str, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = Upstream(says("", ("expand", arguments)), says("ok"))
    with (
        upstream.running() as url,
        gateway(tmp_path, url, offer="always", budget=Budget(window=200_000)) as gate,
    ):
        assert gate.chat("hi").choices[0].message.content == "ok"
    said = upstream.requests[1]["messages"][-1]["content"]
    assert said and len(said) < 1000
    assert not [record for record in caplog.records if record.exc_info]
