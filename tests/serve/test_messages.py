"""Anthropic's Messages through the official client; every answer has the official types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from gateway import Gateway, Upstream, chunk, fails, gateway, says, stream_of
from messages_api import check_error, check_message, check_stream, client_of, events_of

from clara_mlx.context import Budget
from clara_mlx.serve.apis.messages_stream import Blocks, Calls

RUN = {"name": "run", "description": "Run it.", "input_schema": {"type": "object"}}
ASKED: dict[str, Any] = {
    "model": "claude-opus-9",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}
THINK = {"thinking": {"type": "adaptive"}}
LOG = "\n".join(f"step {n}: built module_{n * 7919 % 1009}.c" for n in range(400))

Plain = Callable[..., tuple[Gateway, Upstream]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path_factory.mktemp("shared"), url) as gate:
        yield gate, upstream


@pytest.fixture
def plain(shared: tuple[Gateway, Upstream]) -> Plain:
    """The gateway with default settings, in front of an upstream that replies as the test says."""
    gate, upstream = shared

    def reply(*replies: Any) -> tuple[Gateway, Upstream]:
        upstream.requests.clear()
        upstream.replies = list(replies)
        return gate, upstream

    return reply


def whole(gate: Gateway, **more: Any) -> Any:
    """An answer in one piece, as it was sent."""
    answer = gate.http.post("/v1/messages", json=ASKED | more)
    body = answer.json()
    if answer.status_code == 200:
        check_message(body, beta="context_management" in body)
    else:
        check_error(body)
    return body


def streamed(gate: Gateway, **more: Any) -> list[dict[str, Any]]:
    """The events of a stream, which are checked."""
    answer = gate.http.post("/v1/messages", json=ASKED | more | {"stream": True})
    events = events_of(answer.text)
    check_stream(events, beta="context_management" in more)
    return events


def both(gate: Gateway, **more: Any) -> Any:
    """An answer in one piece; a stream gives the same, but for its id."""
    body = whole(gate, **more)
    with client_of(gate).messages.stream(**ASKED | more) as stream:
        last = stream.get_final_message()
    assert last.id != body["id"]
    written = last.model_dump(
        exclude_none=True, exclude={"content": {"__all__": {"parsed_output"}}}
    )
    assert {"stop_sequence": None, **written, "id": body["id"]} == body
    streamed(gate, **more)
    return body


# -- answers ---------------------------------------------------------------------------------------


def test_text_thought_and_calls(plain: Plain) -> None:
    usage = {
        "prompt_tokens": 90,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 80},
    }
    reply = says("Hellö", ("run", {"a": 1}), ("run", '{"b": 2}'), reasoning="hm", usage=usage)
    gate, upstream = plain(reply)
    body = both(gate, tools=[RUN], **THINK)
    assert body["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "clara-mlx"},
        {"type": "text", "text": "Hellö"},
        {"type": "tool_use", "id": "id-run-0", "name": "run", "input": {"a": 1}},
        {"type": "tool_use", "id": "id-run-1", "name": "run", "input": {"b": 2}},
    ]
    # Claude Code sends thoughts back only to the model that it has asked.
    assert body["stop_reason"] == "tool_use" and body["model"] == ASKED["model"]
    assert body["usage"] == {
        "input_tokens": 10,
        "output_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 80,
    }
    sent = upstream.requests[0]
    assert sent["model"] == "default_model" and sent["max_tokens"] == 100
    assert sent["messages"] == [{"role": "user", "content": "hi"}]


def test_no_two_answers_have_the_same_id(plain: Plain) -> None:
    gate, _ = plain(says("ok"))
    assert len({whole(gate, temperature=1)["id"] for _ in range(3)}) == 3


def test_who_does_not_ask_for_thoughts_gets_none(plain: Plain) -> None:
    gate, _ = plain(says("ok", reasoning="hm"))
    assert both(gate)["content"] == [{"type": "text", "text": "ok"}]
    for thinking in ({"type": "disabled"}, {"type": "adaptive", "display": "omitted"}):
        assert both(gate, thinking=thinking)["content"] == [{"type": "text", "text": "ok"}]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")],
)
def test_why_an_answer_ended(plain: Plain, finish: str, reason: str) -> None:
    gate, _ = plain(says("ok", finish=finish))
    assert both(gate)["stop_reason"] == reason


def test_the_stop_sequence_if_the_server_names_it(plain: Plain) -> None:
    ends = chunk({}, "stop")
    ends["choices"][0]["stop_reason"] = "END"
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}

    async def reply(body: dict[str, Any]) -> Any:
        return stream_of([chunk({"content": "ok"}), ends, usage])

    gate, upstream = plain(reply)
    *_, ending, _ = streamed(gate, stop_sequences=["END"])
    assert ending["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}
    assert upstream.requests[0]["stop"] == ["END"]


def test_white_space_is_no_block(plain: Plain) -> None:
    gate, _ = plain(says("\n\n", ("run", {})))
    assert [block["type"] for block in both(gate, tools=[RUN])["content"]] == ["tool_use"]


def test_arguments_that_can_not_be_read_come_as_an_object(plain: Plain) -> None:
    gate, _ = plain(says("", ("run", '{"x": '), finish="length"))
    body = whole(gate, tools=[RUN])
    assert body["content"][0]["input"] == {"_raw": '{"x": '}
    assert body["stop_reason"] == "max_tokens"


def test_calls_that_come_by_turns_are_blocks_one_after_the_other(plain: Plain) -> None:
    def piece(index: int, arguments: str, **first: Any) -> dict[str, Any]:
        function = {"arguments": arguments, **({"name": "run"} if first else {})}
        return chunk({"tool_calls": [{"index": index, "function": function, **first}]})

    async def reply(body: dict[str, Any]) -> Any:
        return stream_of(
            [
                piece(0, '{"a"', id="c0"),
                piece(1, '{"b"', id="c1"),
                chunk({"content": "Late."}),
                piece(0, ": 1}"),
                piece(2, '{"c": 3}', id="c2"),
                piece(1, ": 2}"),
                chunk({}, "tool_calls"),
            ]
        )

    gate, _ = plain(reply)
    with client_of(gate).messages.stream(**ASKED, tools=[RUN]) as stream:
        said = stream.get_final_message().content
    assert [(b.id, b.input) for b in said if b.type == "tool_use"] == [
        ("c0", {"a": 1}),
        ("c1", {"b": 2}),
        ("c2", {"c": 3}),
    ]
    assert said[-1].type == "text" and said[-1].text == "Late."
    streamed(gate, tools=[RUN])


@pytest.mark.parametrize("heavy_bytes", [1 << 17, 10])  # with 10 it lies in another process
def test_a_server_that_gives_every_call_the_same_id(tmp_path: Path, heavy_bytes: int) -> None:
    """Claude Code would forget all results but the first."""
    upstream = Upstream(says("", ("run", {"a": 1})))
    talk: list[Any] = [{"role": "user", "content": "Go on."}]
    with (
        upstream.running() as url,
        gateway(tmp_path, url, heavy_bytes=heavy_bytes) as gate,
    ):
        for _ in range(3):
            content = whole(gate, tools=[RUN], messages=talk)["content"]
            done = {"type": "tool_result", "tool_use_id": content[0]["id"], "content": "done"}
            talk += [{"role": "assistant", "content": content}, {"role": "user", "content": [done]}]
    ids = [message["content"][0]["id"] for message in talk if message["role"] == "assistant"]
    assert ids[0] == "id-run-0" and len(set(ids)) == 3
    # Mistral's templates take nine letters and digits only.
    assert all(len(one) == 9 and one.isalnum() for one in ids[1:])
    sent = upstream.requests[-1]["messages"]
    assert [m["tool_call_id"] for m in sent if m["role"] == "tool"] == ids[:2]


def test_each_call_is_shown_as_it_comes_if_they_come_in_order() -> None:
    sent: list[dict[str, Any]] = []
    calls = Calls(Blocks(sent.append))

    def take(place: int, arguments: str, **first: Any) -> None:
        function = {"arguments": arguments, "name": "run"}
        calls.take({"index": place, "function": function, **first})

    take(0, "", id="a")
    take(0, "{}")
    take(1, "", id="b")
    take(1, '{"x": 1}')
    kinds = [(event["index"], event["type"].removeprefix("content_block_")) for event in sent]
    assert kinds == [(0, "start"), (0, "delta"), (0, "stop"), (1, "start"), (1, "delta")]


def test_hidden_rounds_go_on_in_one_message(plain: Plain) -> None:
    asks = ("ask_memory", {"question": "which module?"})
    rounds = (says("Let me look.", asks, reasoning="hm"), says("It is 7.", reasoning="so"))
    gate, upstream = plain(*rounds)
    body = whole(gate, tools=[RUN], **THINK)
    assert [block.get("text") or block.get("thinking") for block in body["content"]] == [
        *("hm", "Let me look.", "so", "\n\nIt is 7."),
    ]
    upstream.replies = [*rounds]
    events = streamed(gate, tools=[RUN], messages=[{"role": "user", "content": "again"}], **THINK)
    assert [e["index"] for e in events if e["type"] == "content_block_start"] == [0, 1, 2, 3]
    # The client sends back what it has seen, and the reasoner gets what it said itself.
    upstream.requests.clear()
    upstream.replies = [says("ok")]
    history = [
        *ASKED["messages"],
        {"role": "assistant", "content": body["content"]},
        {"role": "user", "content": "Sure?"},
    ]
    whole(gate, tools=[RUN], messages=history, **THINK)
    roles = [message["role"] for message in upstream.requests[0]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


def test_a_tool_round_with_an_image(tmp_path: Path) -> None:
    pixel = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    seen = [{"type": "text", "text": "shot:"}, {"type": "image", "source": pixel}]
    history = [
        *ASKED["messages"],
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c", "name": "run", "input": {}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": seen}]},
    ]
    upstream = Upstream(says("ok"))
    for images, folder in ((True, tmp_path / "a"), (False, tmp_path / "b")):
        folder.mkdir()
        with upstream.running() as url, gateway(folder, url, remote={"images": images}) as gate:
            client_of(gate).messages.create(**ASKED | {"messages": history}, tools=[RUN])
    passed, told = (request["messages"][-1]["content"] for request in upstream.requests)
    assert passed[1] == {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
    }
    # A refusal would be repeated for ever: the image is in every later request.
    assert told == "shot:\n(an image, which this model can't see: it reads text only)"


def test_a_format_is_asked_for_in_words_where_the_server_does_not_obey(plain: Plain) -> None:
    gate, upstream = plain(says('{"title": "x"}'))
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    form = {"format": {"type": "json_schema", "schema": schema}}
    whole(gate, output_config=form)
    (sent,) = upstream.requests
    assert json.dumps(schema) in sent["messages"][-1]["content"] and "response_format" not in sent


def test_edits_of_the_context_are_reported_if_they_are_asked_for(tmp_path: Path) -> None:
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}, {"type": "clear_thinking_20251015"}]}
    history = [{"role": "user", "content": "Fix the build."}]
    for n in range(6):
        use = {"type": "tool_use", "id": f"c{n}", "name": "run", "input": {"n": n}}
        done = {"type": "tool_result", "tool_use_id": f"c{n}", "content": f"{n}\n{LOG}"}
        history += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [done]}]
    budget = Budget(window=8192, reserve=512)
    with (
        Upstream(says("ok")).running() as url,
        gateway(tmp_path, url, budget=budget) as gate,
    ):
        short = whole(gate, context_management=edits)
        long = whole(gate, context_management=edits, messages=history, tools=[RUN])
        events = streamed(gate, context_management=edits, messages=history, tools=[RUN])
    assert short["context_management"] == {"applied_edits": []}
    (applied,) = long["context_management"]["applied_edits"]
    assert applied["type"] == "clear_tool_uses_20250919" and applied["cleared_tool_uses"] > 0
    # The second time there was nothing left to do.
    assert events[-2]["context_management"] == {"applied_edits": []}


# -- errors ----------------------------------------------------------------------------------------


def test_errors_have_the_official_types(plain: Plain) -> None:
    gate, _ = plain(fails(429, "slow down", **{"retry-after": "7"}))
    client = client_of(gate)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens must be"):
        client.messages.create(**ASKED | {"max_tokens": -1})
    with pytest.raises(anthropic.RateLimitError) as limited:
        client.messages.create(**ASKED)
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.NotFoundError):
        client.post("/v1/messages/batches", cast_to=object, body={})
    check_error(limited.value.response.json())


def test_a_prompt_that_is_too_long_is_refused_in_the_words_that_agents_know(plain: Plain) -> None:
    gate, _ = plain(says("ok"), fails(400, {"code": "context_length_exceeded", "message": "long"}))
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 28672 "):
        client_of(gate).messages.create(
            **ASKED | {"messages": [{"role": "user", "content": LOG * 9}]}
        )
    plain(fails(400, {"code": "context_length_exceeded", "message": "5 of 4 fit"}))
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 5 of 4 fit"):
        client_of(gate).messages.create(**ASKED)


def test_an_error_in_the_middle_of_a_stream(plain: Plain) -> None:
    async def reply(body: dict[str, Any]) -> Any:
        return stream_of([chunk({"content": "So "}), {"error": {"message": "it broke"}}])

    gate, _ = plain(reply)
    events = streamed(gate)
    assert events[-1]["type"] == "error" and "it broke" in events[-1]["error"]["message"]
    with pytest.raises(anthropic.APIStatusError, match="it broke"):
        list(client_of(gate).messages.create(**ASKED, stream=True))


def test_a_stream_that_waits_is_pinged(tmp_path: Path) -> None:
    with (
        Upstream(says("ok", wait=0.5)).running() as url,
        gateway(tmp_path, url, patience=0.05, keepalive=0.1) as gate,
    ):
        text = gate.http.post("/v1/messages", json=ASKED | {"stream": True}).text
    assert text.startswith("event: ping\n") and "\n:" not in text
    check_stream(events_of(text))
