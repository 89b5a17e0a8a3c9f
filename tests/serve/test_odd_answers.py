"""Answers in forms that servers have, and the official client would not show: none is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gateway import Gateway, Upstream, chunk, fails, gateway, says, stream_of, text_of
from starlette.responses import JSONResponse, Response

from clara_mlx.serve.reply import Reply

TOOL = {"type": "function", "function": {"name": "run"}}
TEST = {"type": "function", "function": {"name": "run_tests"}}
CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}

#: Sets what the upstream answers; gives the gateway in front of it.
Answering = Callable[[Any], Gateway]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    upstream = Upstream(says("ok"))
    path = tmp_path_factory.mktemp("odd")
    with upstream.running() as url, gateway(path, url, failures=10**6) as gate:
        yield gate, upstream


@pytest.fixture
def answering(pair: tuple[Gateway, Upstream]) -> Answering:
    gate, upstream = pair

    def answer(reply: Any) -> Gateway:
        upstream.requests.clear()
        upstream.replies = [reply]
        return gate

    return answer


def whole(message: dict[str, Any], finish: str | None = "stop") -> Any:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}

    async def reply(body: dict[str, Any]) -> Response:
        return JSONResponse({"id": "u", "object": "chat.completion", "choices": [choice]})

    return reply


def stream(*deltas: dict[str, Any], finish: str | None = "stop", bom: str = "") -> Any:
    async def reply(body: dict[str, Any]) -> Response:
        ends = [chunk({}, finish)] if finish else []
        return stream_of([*([bom] if bom else []), *map(chunk, deltas), *ends])

    return reply


def test_done_is_an_end(answering: Answering) -> None:
    chunks = answering(stream({"content": "a"}, {"content": "b"}, finish=None)).streamed("hi")
    assert text_of(chunks) == "ab"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}],
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
            {"type": "text", "text": "Hello"},
        ],
    ],
)
def test_content_may_be_a_list(answering: Answering, content: Any) -> None:
    message = answering(whole({"content": content})).chat("hi").choices[0].message
    chunks = answering(stream({"content": content})).streamed("hi")
    assert message.content == text_of(chunks) == "Hello"
    thought = "hm" if len(str(content[0])) > 40 else None
    assert getattr(message, "reasoning", None) == thought


def test_a_refusal_is_an_answer(answering: Answering) -> None:
    gate = answering(whole({"content": None, "refusal": "I won't."}))
    assert gate.chat("hi").choices[0].message.refusal == "I won't."
    gate = answering(stream({"refusal": "I "}, {"refusal": "won't."}))
    assert [c.choices[0].delta.refusal for c in gate.streamed("hi")] == ["I ", "won't.", None]


def test_a_refusal_is_what_was_said_then(pair: tuple[Gateway, Upstream]) -> None:
    gate, upstream = pair
    upstream.replies = [says("ok")]
    parts = [{"type": "refusal", "refusal": "Not this."}]
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "refusal": "I won't."},
        {"role": "assistant", "content": parts},
        {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
    ]
    gate.chat(history)
    sent = upstream.requests[-1]["messages"]
    assert sent[1] == {"role": "assistant", "content": "I won't."}
    assert sent[2]["content"] == [{"type": "text", "text": "Not this."}]
    assert sent[3]["content"] == [{"type": "text", "text": "b"}]


def test_calls_in_the_older_form(answering: Answering) -> None:
    function = {"name": "run", "arguments": '{"x": 1}'}
    gate = answering(whole({"content": None, "function_call": function}, "function_call"))
    answer = gate.chat("hi", tools=[TOOL]).choices[0]
    (call,) = answer.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("run", '{"x": 1}')
    assert answer.finish_reason == "tool_calls" and answer.message.function_call is None
    pieces = ({"name": "run", "arguments": ""}, {"arguments": '{"x"'}, {"arguments": ": 1}"})
    odd = stream(*({"function_call": piece} for piece in pieces), finish="function_call")
    assert calls_of(answering(odd)) == [("run", '{"x": 1}')]


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        # In pieces, the first of which is another tool's name.
        ([{"name": "run"}, {"name": "_tests"}, {"arguments": "{}"}], [("run_tests", "{}")]),
        ([{"name": "run"}, {"name": "run", "arguments": "{}"}], [("run", "{}")]),
        ([{"name": "run", "arguments": "{"}, {"name": "run", "arguments": "}"}], [("run", "{}")]),
        ([{"name": "run", "arguments": ""}], [("run", "")]),
        ([{"name": "ru"}, {"name": "n"}], [("run", "")]),
    ],
    ids=range(5),
)
@pytest.mark.parametrize("finish", ["tool_calls", None])
def test_the_name_of_a_call_may_come_in_pieces(
    answering: Answering, deltas: list[Any], expected: Any, finish: str | None
) -> None:
    odd = [{"tool_calls": [{"index": 0, "id": "c", "function": one}]} for one in deltas]
    assert calls_of(answering(stream(*odd, finish=finish))) == expected


def test_many_calls_take_no_longer_each() -> None:
    reply = Reply(frozenset(("expand",)))
    odd = [{"id": [1], "function": None}, {"index": None, "id": {}, "function": "x"}, {}]
    many = [{"index": n, "id": "same"} for n in range(20_000)]
    reply.take_chunk({"choices": [{"delta": {"tool_calls": [*odd, *many]}}]})
    named = [{**one, "function": {"name": "run"}} for one in many[:10_000]]
    reply.take_chunk({"choices": [{"delta": {"tool_calls": named}, "finish_reason": "stop"}]})
    assert len(reply.client_calls) == 10_000 == len({call.id for call in reply.client_calls})


def calls_of(gate: Gateway) -> list[tuple[str, str]]:
    """The calls that the official client puts together from a stream."""
    with gate.client.chat.completions.stream(
        model="m", messages=ASK["messages"], tools=[TOOL, TEST]
    ) as events:
        message = events.get_final_completion().choices[0].message
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def test_a_byte_order_mark_hides_nothing(answering: Answering) -> None:
    assert text_of(answering(stream({"content": "Hello"}, bom="\ufeff")).streamed("hi")) == "Hello"

    async def marked(body: dict[str, Any]) -> Response:
        answer = await says("Hello")(body)
        return Response(b"\xef\xbb\xbf" + bytes(answer.body), media_type="application/json")

    assert answering(marked).chat("hi").choices[0].message.content == "Hello"


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        ({"message": "Provider returned error", "code": 429}, 429, "Provider returned error"),
        ({"message": "busy", "type": "overloaded_error"}, 503, "busy"),
        ({"message": "no such model", "code": "404"}, 400, "no such model"),
        ({"message": "prompt is too long: 9 tokens > 8 maximum"}, 400, "too long"),
        ("it broke", 502, "it broke"),
    ],
    ids=range(5),
)
def test_an_error_in_a_response_of_200_is_one(
    answering: Answering, error: Any, status: int, says: str, kind: str, as_stream: bool
) -> None:
    async def reply(body: dict[str, Any]) -> Response:
        content = json.dumps({"error": error})
        is_event = kind == "text/event-stream"
        return Response(f"data: {content}\n\n" if is_event else content, media_type=kind)

    if kind == "text/event-stream" and not as_stream:
        return  # nobody answers so
    answer = answering(reply).http.post(CHAT, json=ASK | {"stream": as_stream})
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == str(status != 400).lower()


@pytest.mark.parametrize(("status", "seen"), [(429, 429), (503, 503), (529, 503), (500, 502)])
def test_how_long_to_wait_is_passed_on(answering: Answering, status: int, seen: int) -> None:
    headers = {"retry-after": "7", "retry-after-ms": "6500"}
    answer = answering(fails(status, "busy", **headers)).http.post(CHAT, json=ASK)
    assert answer.status_code == seen and answer.headers["x-should-retry"] == "true"
    assert {name: answer.headers[name] for name in headers} == headers


def test_lone_surrogates_are_sent_as_readme_says(pair: tuple[Gateway, Upstream]) -> None:
    gate, upstream = pair
    upstream.replies = [says("ok")]
    body = json.dumps({"messages": [{"role": "user", "content": "a\ud83db \ud83d\ude00"}]})
    gate.http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert upstream.requests[-1]["messages"][0]["content"] == "a\ufffdb \U0001f600"


def test_habits_of_clients(pair: tuple[Gateway, Upstream]) -> None:
    gate, upstream = pair
    upstream.replies = [says("ok")]
    system = [{"role": "system", "content": c} for c in ([{"type": "text", "text": "a"}], "b")]
    body = {"messages": [*system, *ASK["messages"]], "max_tokens": -1}
    assert gate.http.post(CHAT, json=body).status_code == 200
    sent = upstream.requests[-1]
    assert sent["messages"][0] == {"role": "system", "content": "a\n\nb"}
    assert sent["max_tokens"] == 4096
