"""The events of streamed Responses: each as OpenAI's own types have it, in order and complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, Upstream, chunk, gateway, says, stream_of
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from responses_requests import TOOLS
from starlette.responses import Response as HttpResponse

from clara_mlx.context import Budget

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def events(gate: Gateway, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, each of which must be named in its data, too, and be numbered."""
    found = []
    given = {"model": "any", "input": "Go.", "tools": TOOLS, "stream": True, **body}
    with gate.http.stream("POST", "/v1/responses", json=given) as answer:
        assert answer.status_code == 200, answer.read()
        text = "".join(answer.iter_text())
    for event in text.strip().split("\n\n"):
        if event.startswith(":"):
            continue
        name, data = event.split("\ndata: ")
        found.append(json.loads(data))
        assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def validate(found: list[dict[str, Any]]) -> None:
    for event in found:
        EVENT.validate_python(event, strict=False)


def test_every_event_is_of_openais_types(tmp_path: Path) -> None:
    calls = (("bash", {"a": "ls"}), ("apply_patch", {"input": "*** x"}), ("crm__find", {"q": 1}))
    upstream = Upstream(says("On it.", *calls, reasoning_content="Look first."))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        found = events(gate)
    validate(found)
    assert [event["type"].removeprefix("response.") for event in found] == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", *["output_text.delta"] * 3),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta"),
        *("output_item.added", "output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    assert_consistent(found)


def assert_consistent(found: list[dict[str, Any]]) -> None:
    """What the deltas add up to is what the items have at their end, and the response as well."""
    response = found[-1]["response"]
    Response.model_validate(response)
    assert {event["response"]["id"] for event in found if "response" in event} == {response["id"]}
    done = {e["output_index"]: e["item"] for e in found if e["type"].endswith("item.done")}
    assert [done[index] for index in sorted(done)] == response["output"]
    for index, item in done.items():
        own = [event for event in found if event.get("output_index") == index]
        added = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        texts = [*item.get("summary", ()), *item.get("content", ())]
        whole = texts[0]["text"] if texts else item.get("arguments", item.get("input"))
        assert added == whole
        ids = {event["item_id"] for event in own if "item_id" in event}
        assert ids <= {item["id"]} and own[0]["item"]["id"] == item["id"]


def test_the_official_client_builds_the_response(tmp_path: Path) -> None:
    upstream = Upstream(says("On it.", ("bash", {"a": "ls"}), reasoning_content="Look."))
    with (
        upstream.running() as url,
        gateway(tmp_path, url) as gate,
        gate.client.responses.stream(model="any", input="Go.", tools=TOOLS[:1]) as stream,
    ):
        kinds = [event.type for event in stream]
        final: Any = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert (final.output_text, final.status) == ("On it.", "completed")
    assert final.output[2].name == "bash" and final.usage.total_tokens == 105


def test_text_goes_on_after_a_call_and_between_thoughts(tmp_path: Path) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "bash", "arguments": "{}"}}
    deltas: list[dict[str, Any]] = [
        *({"content": "One."}, {"reasoning": "Hm."}, {"content": "Two."}),
        *({"tool_calls": [call]}, {"content": "Three."}),
    ]

    async def reply(body: dict[str, Any]) -> HttpResponse:
        return stream_of([*map(chunk, deltas), chunk({}, "tool_calls")])

    upstream = Upstream(reply)
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        found = events(gate)
        output = found[-1]["response"]["output"]
        gave = {"type": "function_call_output", "call_id": "c1", "output": "x"}
        events(gate, input=[{"role": "user", "content": "Go."}, *output, gave])
    validate(found)
    assert_consistent(found)
    kinds = [item["type"] for item in output]
    assert kinds == ["message", "reasoning", "message", "function_call", "message"]
    assert upstream.requests[1]["messages"][1]["content"] == "One.\n\nTwo.Three."


@pytest.mark.parametrize(
    ("finish", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_says_so(tmp_path: Path, finish: str, why: str) -> None:
    upstream = Upstream(says("On", finish=finish))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        found = events(gate)
        whole: Any = gate.client.responses.create(model="any", input="Go.")
    validate(found)
    last = found[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": why}
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert whole.incomplete_details.reason == why


def test_a_free_form_call_is_read_however_it_is_written(tmp_path: Path) -> None:
    given = ['{"input": "a"}', '{"patch": "b"}', "*** Begin", '{"x": 1, "y": 2}']
    upstream = Upstream(says("", *[("apply_patch", one) for one in given]))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        found = events(gate)
    output = found[-1]["response"]["output"]
    assert [item["input"] for item in output] == ["a", "b", "*** Begin", '{"x": 1, "y": 2}']


def test_a_stream_that_breaks_ends_as_failed(tmp_path: Path) -> None:
    broken = {"error": {"message": "out of memory", "code": "boom"}}

    async def reply(body: dict[str, Any]) -> HttpResponse:
        return stream_of([chunk({"content": "On"}), broken], ends=False)

    upstream = Upstream(reply)
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        found = events(gate)
    validate(found)
    last = found[-1]
    assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert "out of memory" in last["response"]["error"]["message"]
    assert last["response"]["id"] == found[0]["response"]["id"]


def test_a_full_window_is_refused_before_a_stream_begins(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    small = Budget(window=1024, reserve=64)
    body = {"model": "any", "input": "word " * 3000, "stream": True}
    with upstream.running() as url, gateway(tmp_path, url, budget=small) as gate:
        refused = gate.http.post("/v1/responses", json=body)
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


def test_codex_learns_that_the_window_is_full(tmp_path: Path) -> None:
    """Also when the stream has begun before that is known: Codex looks for the code."""
    upstream = Upstream(says("ok", wait=1.0))
    small = Budget(window=1024, reserve=64)
    with upstream.running() as url, gateway(tmp_path, url, budget=small, patience=0.0) as gate:
        found = events(gate, input="word " * 3000)
    assert [event["type"] for event in found] == [
        *("response.created", "response.in_progress", "response.failed")
    ]
    assert found[-1]["response"]["error"]["code"] == "context_length_exceeded"
