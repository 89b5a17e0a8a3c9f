"""The memory over HTTP."""

from __future__ import annotations

import inspect
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, Upstream, gateway, says

from clara_mlx.errors import StorageFailed
from clara_mlx.model.thread import Priority
from clara_mlx.serve.rest import Rest

TEXTS = ["", "one\r\ntwo", "NUL \x00 and \u2028", "half \ud800 of a pair", "x" * 100_000]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path_factory.mktemp("rest"), url) as made,
    ):
        yield made


def post(gate: Gateway, name: str, **body: Any) -> Any:
    content = json.dumps(body).encode()  # which can write half a surrogate pair
    headers = {"content-type": "application/json"}
    answer = gate.http.post(f"/v1/memory/{name}", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_remembered_comes_back(gate: Gateway, text: str) -> None:
    given = {"source": "pytest", "session": "s", "metadata": {"n": 1}}
    handle = post(gate, "remember", text=text, **given)["handle"]
    answer = gate.http.get(f"/v1/memory/original/{handle}")
    assert answer.content == text.encode("utf-8", "surrogatepass")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert post(gate, "forget", handle=handle) == {"forgotten": 1}
    assert gate.http.get(f"/v1/memory/original/{handle}").status_code == 404


def test_bytes_are_not_text(gate: Gateway) -> None:
    handle = gate.memory.remember(b"\xff<script>")
    answer = gate.http.get(f"/v1/memory/original/{handle}")
    assert answer.content == b"\xff<script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    hits = post(gate, "recall", query="script")["hits"]
    assert hits[0]["handle"] == handle


def test_recall_has_pages(gate: Gateway) -> None:
    for number in range(7):
        post(gate, "remember", text=f"gadget number {number}", source="shop")
    seen: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = post(gate, "recall", query="gadget", k=3, offset=offset, where={"source": "shop"})
        assert len(page["hits"]) <= 3
        seen += [hit["text"] for hit in page["hits"]]
        offset = page["next"]
    assert sorted(seen) == [f"gadget number {number}" for number in range(7)]
    assert post(gate, "recall", query="gadget", mode="text", where={"source": "none"})["hits"] == []
    assert post(gate, "forget", where={"source": "shop"}) == {"forgotten": 7}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("remember", {}),
        ("remember", {"text": 1}),
        ("remember", {"text": "x", "metadata": []}),
        ("recall", {"query": "x", "k": 0}),
        ("recall", {"query": "x", "k": 10**9}),
        ("recall", {"query": "x", "k": True}),
        ("recall", {"query": "x", "offset": -1}),
        ("recall", {"query": "x", "mode": "magic"}),
        ("recall", {"query": "x", "mode": "latent"}),  # there is no model
        ("recall", {"query": "x", "where": {"a": {"b": 1}}}),
        ("ask", {"question": "x"}),
        ("ask", {"question": None}),
    ],
)
def test_mistakes_are_refused(gate: Gateway, name: str, body: dict[str, Any]) -> None:
    answer = gate.http.post(f"/v1/memory/{name}", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_status_and_metrics(gate: Gateway) -> None:
    gate.chat("hi")
    status = gate.status()
    assert status["memory"]["memories"] == gate.memory.status().memories
    assert status["gateway"]["breaker"] == "closed" and status["gateway"]["tokens_exact"] is False
    assert status["conversations"][0]["tokens_sent"] == 100
    assert gate.status("no such session")["conversations"] == []
    page = gate.http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'clara_requests_total{route="/v1/chat/completions",status="200"}' in page.text
    gate.http.get("/v1/memory/original/whatever")
    gate.http.get("/some/secret/path")
    assert "whatever" not in gate.http.get("/metrics").text
    assert "secret" not in gate.http.get("/metrics").text


def test_asking_with_a_model(tmp_path: Path, clara: Callable[..., Any]) -> None:
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path, url, clara=clara("c16", "e2e")) as gate,
    ):
        handle = post(gate, "remember", text="The door code is 4711.")["handle"]
        gate.memory.flush(60)
        answer = post(gate, "ask", question="What is the door code?", max_tokens=4)
        assert answer["evidence"] == [] or answer["evidence"][0]["handle"] == handle
        assert isinstance(answer["text"], str) and answer["passes"] in (0, 1)
        found = post(gate, "recall", query="door code", mode="latent")["hits"]
        assert found[0]["handle"] == handle and found[0]["cosine"] is not None


def test_a_question_does_not_wait_for_the_backlog(
    tmp_path: Path, clara: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path, url, clara=clara("c16", "e2e")) as gate,
    ):
        handle = post(gate, "remember", text="The door code is 4711.")["handle"]
        gate.memory.flush(60)
        assert gate.memory.model_thread is not None
        submit, ask = gate.memory.model_thread.submit, gate.memory.ask
        queued = {priority: threading.Event() for priority in Priority}
        ran: list[Priority] = []
        left: list[int] = []

        def noted(priority: Priority, work: Callable[[], Any]) -> Any:
            def run() -> Any:
                ran.append(priority)
                return work()

            future = submit(priority, run)
            queued[priority].set()
            return future

        def asked(*args: Any, **options: Any) -> Any:
            answer = ask(*args, **options)
            left.append(gate.memory.backlog())
            return answer

        free = threading.Event()
        # The model is busy until both wait for it; for a minute at most, so that failures end.
        submit(Priority.QUESTION, lambda: free.wait(60))
        monkeypatch.setattr(gate.memory.model_thread, "submit", noted)
        monkeypatch.setattr(gate.memory, "ask", asked)
        for number in range(60):
            post(gate, "remember", text=f"ledger {number} mirrors its shard. " * 30)
        assert queued[Priority.BACKLOG].wait(30)
        with ThreadPoolExecutor() as pool:
            question = "What is the door code?"
            answer = pool.submit(post, gate, "ask", question=question, max_tokens=4)
            assert queued[Priority.QUESTION].wait(20)
            free.set()
            assert answer.result(60)["evidence"][0]["handle"] == handle
        assert ran[0] is Priority.QUESTION  # though it came last
        assert left[0] > 0


def test_a_failing_file_is_not_the_clients_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise StorageFailed("the disk is full", transient=True)

    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        with monkeypatch.context() as patch:
            patch.setattr(gate.memory, "remember", full)
            answer = gate.http.post("/v1/memory/remember", json={"text": "x"})
        assert answer.status_code == 503 and answer.headers["x-should-retry"] == "true"
        with gate.memory.file.write() as connection:
            connection.execute("DROP TABLE memories")
        gate.breaks = True
        answer = gate.http.post("/v1/memory/remember", json={"text": "x"})
        # What is damaged stays damaged, however often it is asked.
        assert answer.status_code == 503 and answer.headers["x-should-retry"] == "false"


def test_the_document_says_what_is_served(gate: Gateway) -> None:
    """Every route is in it, and every body has the fields that its handler reads."""
    told = gate.http.get("/openapi.json").json()
    source = inspect.getsource(Rest)
    served = set(re.findall(r'Route\("(/v1/memory/[^"]+)"', source))
    assert set(told["paths"]) == served and len(served) > 6
    for path, methods in told["paths"].items():
        ((method, about),) = methods.items()
        handler = inspect.getsource(getattr(Rest, about["operationId"]))
        read = re.findall(r'given(?:, |\.get\()"(\w+)"', handler)
        body = about.get("requestBody")
        assert about["summary"] and (method == "post") == bool(body)
        schema = body["content"]["application/json"]["schema"] if body else {"properties": {}}
        assert set(schema["properties"]) == set(read), path
        for name in schema.get("required", ()):
            refused = gate.http.request(method, path, json={})
            assert refused.status_code == 400 and refused.json()["error"]["param"] == name
    hit = told["components"]["schemas"]["Hit"]["properties"]
    handle = post(gate, "remember", text="described")["handle"]
    assert set(post(gate, "recall", query="described")["hits"][0]) == set(hit)
    post(gate, "forget", handle=handle)
