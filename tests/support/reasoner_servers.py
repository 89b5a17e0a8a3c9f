"""What servers of Messages and Responses send, checked by the types of their official clients."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from typing import Any

from anthropic.types import (
    ContentBlockParam,
    Message,
    MessageParam,
    RawMessageStreamEvent,
    ToolChoiceParam,
    ToolParam,
)
from gateway import Reply
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseInputItemParam,
    ResponseStreamEvent,
)
from pydantic import TypeAdapter
from starlette.responses import JSONResponse, StreamingResponse
from starlette.responses import Response as HttpResponse

Object = dict[str, Any]


@cache
def _type(kind: Any) -> TypeAdapter[Any]:
    """What checks values of a type; it takes long to make."""
    return TypeAdapter(kind)


def _checked(values: list[Object], kind: Any) -> list[Object]:
    """The same values with all fields that their type has."""
    return [_type(kind).validate_python(one).model_dump(mode="json") for one in values]


def sends(whole: Object, events: Iterable[Object]) -> Reply:
    """A server's answer: whole, or as events that have their names, too."""

    async def reply(body: Object) -> HttpResponse:
        if not body.get("stream"):
            return JSONResponse(whole)
        text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
        return StreamingResponse(iter([text]), media_type="text/event-stream")

    return reply


# -- Messages --------------------------------------------------------------------------------------


def message(content: list[Object], stop: str = "end_turn", **usage: int) -> Object:
    """A whole message."""
    usage = {"input_tokens": 3, "output_tokens": 5} | usage
    own = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude"}
    made = {**own, "content": content, "stop_reason": stop, "stop_sequence": None, "usage": usage}
    return Message.model_validate(made).model_dump(mode="json")


def message_events(whole: Object) -> list[Object]:
    """The events of the stream in which a message comes, its texts in pieces."""
    usage = {**whole["usage"], "output_tokens": 1}
    events: list[Object] = [
        {
            "type": "message_start",
            "message": {**whole, "content": [], "stop_reason": None, "usage": usage},
        }
    ]
    for index, block in enumerate(whole["content"]):
        begun, deltas = _pieces(block)
        events += [
            {"type": "content_block_start", "index": index, "content_block": begun},
            *({"type": "content_block_delta", "index": index, "delta": one} for one in deltas),
            {"type": "content_block_stop", "index": index},
        ]
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": whole["usage"]["output_tokens"]}
    events += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
    checked = [
        _type(RawMessageStreamEvent).validate_python(one).model_dump(mode="json") for one in events
    ]
    return [checked[0], {"type": "ping"}, *checked[1:]]


def _pieces(block: Object) -> tuple[Object, list[Object]]:
    """A block as it begins, and what is added to it."""
    if block["type"] == "text":
        halves = halved(block["text"])
        return {**block, "text": ""}, [{"type": "text_delta", "text": one} for one in halves]
    if block["type"] == "thinking":
        deltas: list[Object] = [
            {"type": "thinking_delta", "thinking": one} for one in halved(block["thinking"])
        ]
        signature = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*deltas, signature]
    if block["type"] == "tool_use":
        halves = halved(json.dumps(block["input"]))
        deltas = [{"type": "input_json_delta", "partial_json": one} for one in halves]
        return {**block, "input": {}}, deltas
    return block, []


def halved(text: str) -> list[str]:
    """A text in two pieces."""
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def check_message_request(body: Object) -> None:
    """Check that a request is one that Anthropic's client could have sent, and its API takes."""
    _type(list[MessageParam]).validate_python(body["messages"])
    block = _type(ContentBlockParam)
    roles = [one["role"] for one in body["messages"]]
    assert roles[0] == "user" and all(a != b for a, b in pairwise(roles))
    waiting: list[str] = []
    for one in body["messages"]:
        assert one["content"]
        for part in one["content"]:
            block.validate_python(part)
            assert part.get("text", "x").strip()
        if one["role"] == "user":
            first = [p["tool_use_id"] for p in one["content"] if p["type"] == "tool_result"]
            kinds = [part["type"] for part in one["content"]]
            assert kinds[: len(first)] == ["tool_result"] * len(first)
            assert sorted(first) == sorted(waiting)
        waiting = [part["id"] for part in one["content"] if part["type"] == "tool_use"]
    assert not waiting
    _type(list[ToolParam]).validate_python(body.get("tools", []))
    if "tool_choice" in body:
        _type(ToolChoiceParam).validate_python(body["tool_choice"])
    assert isinstance(body["max_tokens"], int) and isinstance(body.get("system", ""), str)
    if "tool_use" in json.dumps(body["messages"]):
        assert body["tools"]


# -- Responses -------------------------------------------------------------------------------------


def response(output: list[Object], *, incomplete: str | None = None, **more: Any) -> Object:
    """A whole response."""
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }
    made = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
        "status": "incomplete" if incomplete else "completed",
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        **more,
    }
    return Response.model_validate(made).model_dump(mode="json")


def response_events(whole: Object) -> list[Object]:
    """The events of the stream in which a response comes, its texts in pieces."""
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    events: list[Object] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(whole["output"]):
        events += _item_events(index, item)
    events.append({"type": f"response.{whole['status']}", "response": whole})
    numbered = [{**one, "sequence_number": n} for n, one in enumerate(events)]
    return [
        _type(ResponseStreamEvent).validate_python(one).model_dump(mode="json") for one in numbered
    ]


def _item_events(index: int, item: Object) -> list[Object]:
    place = {"output_index": index}
    empty = {"message": {"content": []}, "reasoning": {"summary": [], "content": None}}
    begun = {**item, **empty.get(item["type"], {"arguments": ""})}
    where = {**place, "item_id": item["id"]}
    events: list[Object] = [{"type": "response.output_item.added", "item": begun, **place}]
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        events += [
            {"type": f"{kind}.delta", "delta": one, **where} for one in halved(item["arguments"])
        ]
        end = {"arguments": item["arguments"], "name": item["name"]}
        events.append({"type": f"{kind}.done", **end, **where})
    elif item["type"] == "reasoning":
        for number, part in enumerate(item["summary"]):
            which = {**where, "summary_index": number}
            events += [
                {"type": "response.reasoning_summary_text.delta", "delta": one, **which}
                for one in halved(part["text"])
            ]
    else:
        for number, part in enumerate(item["content"]):
            name = "refusal" if part["type"] == "refusal" else "text"
            kind = "refusal" if part["type"] == "refusal" else "output_text"
            which = {**where, "content_index": number, "logprobs": []}
            events += [
                {"type": f"response.{kind}.delta", "delta": one, **which}
                for one in halved(part[name])
            ]
    return [*events, {"type": "response.output_item.done", "item": item, **place}]


def check_response_request(body: Object) -> None:
    """Check that a request is one that OpenAI's client could have sent, and its API takes."""
    item = _type(ResponseInputItemParam)
    waiting: list[str] = []
    for one in body["input"]:
        item.validate_python(one)
        if one.get("type") == "function_call":
            waiting.append(one["call_id"])
        elif one.get("type") == "function_call_output":
            waiting.remove(one["call_id"])
        else:
            assert not waiting
    assert not waiting
    _type(list[FunctionToolParam]).validate_python(body.get("tools", []))
    assert body["store"] is False and isinstance(body.get("instructions", ""), str)
