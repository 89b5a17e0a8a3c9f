from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from clara_mlx.train.examples.question_writer import QuestionWriter, QuestionWriterError

PYTEST = "FAILED tests/test_store.py::test_take - KeyError: 'bolt'\n1 failed, 3 passed in 0.62s\n"

Reply = Callable[[BaseHTTPRequestHandler, int, dict[str, Any]], None]


@contextmanager
def endpoint(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real HTTP server; ``reply`` answers its n-th request."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append({"path": self.path, "key": self.headers["authorization"], "body": body})
            reply(self, len(requests), body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
        finally:
            server.shutdown()
            thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: str, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body.encode())))
    handler.end_headers()
    handler.wfile.write(body.encode())


def completion(content: str) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


PAIRS = [
    {"question": "Which item is missing?", "answer": "bolt"},
    {"question": "How many\npassed?", "answer": 3},
    {"question": "Invented?", "answer": "screw"},
    {"question": "A part of a word?", "answer": "bol"},
    {"question": "Twice?", "answer": "bolt"},
    {"question": "Twice?", "answer": "KeyError"},
    {"question": "", "answer": "bolt"},
    {"question": "Too long?", "answer": "x" * 99},
    {"question": "No answer?"},
]
KEPT = [("Which item is missing?", "bolt"), ("How many passed?", "3"), ("Twice?", "bolt")]


@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "See [1]. Here you are:\n{}\nBye."])
def test_only_verbatim_answers_are_kept(around: str) -> None:
    content = around.replace("{}", json.dumps(PAIRS))
    with (
        endpoint(lambda handler, *_: send(handler, 200, completion(content))) as (url, requests),
        QuestionWriter(url, "m", api_key="k" * 5) as writer,
    ):
        assert writer.write(PYTEST) == KEPT
        assert (writer.kept, writer.refused) == (3, 6)
    (request,) = requests
    assert request["path"] == "/v1/chat/completions"
    assert request["key"] == "Bearer kkkkk"
    assert request["body"]["model"] == "m"
    assert PYTEST in request["body"]["messages"][-1]["content"]


@pytest.mark.parametrize("content", ["", "no list", "[1, 2", '[{"question": }]', "[" * 9_000])
def test_useless_replies_give_nothing(content: str) -> None:
    with (
        endpoint(lambda handler, *_: send(handler, 200, completion(content))) as (url, _),
        QuestionWriter(url, "m") as writer,
    ):
        assert writer.write(PYTEST) == []


def test_busy_servers_are_asked_again() -> None:
    def reply(handler: BaseHTTPRequestHandler, number: int, _: dict[str, Any]) -> None:
        if number == 1:
            send(handler, 503, "busy", Retry_After="0")
        elif number == 2:
            handler.connection.close()  # mid-request
        else:
            send(handler, 200, completion(json.dumps(PAIRS)))

    with endpoint(reply) as (url, requests), QuestionWriter(url, "m", pause=0.01) as writer:
        assert writer.write(PYTEST) == KEPT
        assert len(requests) == 3


def test_failures_are_reported() -> None:
    with (
        endpoint(lambda handler, *_: send(handler, 500, "broken")) as (url, requests),
        QuestionWriter(url, "m", pause=0.01, retries=2) as writer,
    ):
        with pytest.raises(QuestionWriterError, match=r"HTTP 500: broken \(after 3 attempts\)"):
            writer.write(PYTEST)
        assert len(requests) == 3
    with (
        endpoint(lambda handler, *_: send(handler, 401, "no key")) as (url, requests),
        QuestionWriter(url, "m", pause=0.01) as writer,
    ):
        with pytest.raises(QuestionWriterError, match="HTTP 401: no key"):
            writer.write(PYTEST)
        assert len(requests) == 1
    with (
        endpoint(lambda handler, *_: send(handler, 200, "{}")) as (url, _),
        QuestionWriter(url, "m") as writer,
        pytest.raises(QuestionWriterError, match="not a chat completion"),
    ):
        writer.write(PYTEST)
    with (
        QuestionWriter(url, "m", pause=0.01, retries=1) as writer,  # the server is gone
        pytest.raises(QuestionWriterError, match="ConnectError"),
    ):
        writer.write(PYTEST)


def test_slow_servers_time_out() -> None:
    release = threading.Event()
    with (
        endpoint(lambda *_: release.wait(20) and None) as (url, _),
        QuestionWriter(url, "m", timeout=0.2, retries=0) as writer,
    ):
        try:
            with pytest.raises(QuestionWriterError, match="Timeout"):
                writer.write(PYTEST)
        finally:
            release.set()
