"""Answers that are nearly right, whatever API they are of, are answers or errors of ours.

hypothesis changes what the official types allow (tests/support/reasoner_servers.py) in any place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from gateway import chunk
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_requests import changed, written
from reasoner_servers import message, message_events, response, response_events
from sizes import sized

from clara_mlx.serve.errors import ApiError, Unavailable, error_of_event
from clara_mlx.serve.json_values import BadJson, read_answer
from clara_mlx.serve.reasoner_apis import REASONER_APIS, NotAnAnswer
from clara_mlx.serve.reply import Reply

Object = dict[str, Any]

CALL = {"id": "t", "type": "function", "function": {"name": "run", "arguments": "{}"}}
MESSAGE = message(
    [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "t", "name": "run", "input": {"a": [1]}},
    ],
    "tool_use",
)
SPOKEN = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
RESPONSE = response(
    [
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
        {**SPOKEN, "content": [{"type": "output_text", "text": "Hello", "annotations": []}]},
        {"type": "function_call", "id": "f", "call_id": "t", "name": "run", "arguments": "{}"},
    ]
)
COMPLETION = {
    "choices": [{"message": {"content": "Hello", "tool_calls": [CALL]}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1},
}
CHUNKS = [
    chunk({"content": "Hello", "reasoning_content": "hm"}),
    chunk({"tool_calls": [{**CALL, "index": 0}], "function_call": {"name": "run"}}),
    chunk({"content": [{"type": "text", "text": "Hello"}], "refusal": "no"}, "stop"),
]
ANSWERS: dict[str, tuple[Object, list[Object]]] = {
    "chat": (COMPLETION, CHUNKS),
    "messages": (MESSAGE, message_events(MESSAGE)),
    "responses": (RESPONSE, response_events(RESPONSE)),
}


def outcome(api: str, whole: Any, events: list[Any]) -> Iterator[Any]:
    """What comes of an answer, and of a stream: replies, or the errors that clients get."""
    speaks = REASONER_APIS[api]()
    for pieces in ([whole], events):
        reply, reader = Reply(frozenset(("expand",))), speaks.events()
        try:
            for piece in pieces:
                value = read_answer(written(piece).encode())
                if not isinstance(value, dict):
                    raise NotAnAnswer("is not a JSON object")
                if error := speaks.error_in(value):
                    raise error_of_event("the reasoner", error)
                if pieces is events:
                    for one in reader.read(value):
                        reply.take_chunk(one)
                else:
                    reply.take_answer(speaks.completion(value))
            for one in reader.end():
                reply.take_chunk(one)
        except (NotAnAnswer, BadJson, ApiError, Unavailable) as error:
            yield error
        else:
            yield reply


@pytest.mark.parametrize("api", ANSWERS)
def test_unchanged_they_are_answers(api: str) -> None:
    for reply in outcome(api, *ANSWERS[api]):
        assert reply.content in ("Hello", "HelloHello")
        assert [call.name for call in reply.client_calls] == ["run"]
        json.dumps(reply.message())


@pytest.mark.parametrize("api", ANSWERS)
@settings(max_examples=sized(60, 5_000), deadline=None)
@given(data=st.data())
def test_changed_they_are_answers_or_errors(api: str, data: st.DataObject) -> None:
    whole, events = ANSWERS[api]
    for found in outcome(api, data.draw(changed(whole)), data.draw(changed(events))):
        if isinstance(found, Reply):
            text = json.dumps([found.message(), [c.as_message_part() for c in found.calls]])
            assert isinstance(text, str) and isinstance(found.content, str)
