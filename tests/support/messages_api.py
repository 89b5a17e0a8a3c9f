"""Anthropic's official client for a gateway, and its types as the judge of what we send."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from gateway import Gateway
from pydantic import BaseModel, TypeAdapter

_EVENTS: dict[bool, TypeAdapter[Any]] = {
    False: TypeAdapter(RawMessageStreamEvent),
    True: TypeAdapter(BetaRawMessageStreamEvent),
}


def client_of(gate: Gateway, key: str = "none") -> anthropic.Anthropic:
    """The official client; it sends its key as x-api-key."""
    plain = httpx2.Client(trust_env=False, verify=False)
    return anthropic.Anthropic(base_url=gate.url, api_key=key, max_retries=0, http_client=plain)


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream as it was sent; each has the name that its data has."""
    events = []
    for one in text.split("\n\n"):
        if not one or one.startswith(":"):
            continue
        name, data = one.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def check_stream(events: list[dict[str, Any]], *, beta: bool = False) -> None:
    """Check a whole stream: the official types, the order of its events, one block at a time."""
    for event in events:
        if event["type"] == "error":
            check_error(event)
        elif event["type"] != "ping":  # which the client drops before it looks at types
            _refuse_unknown(_EVENTS[beta].validate_python(event, strict=False))
    kinds = [event["type"] for event in events if event["type"] not in ("ping", "error")]
    assert kinds[0] == "message_start" and kinds.count("message_start") == 1
    closed, opened = 0, False
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert not opened and event["index"] == closed
                opened = True
            case "content_block_delta":
                assert opened and event["index"] == closed
            case "content_block_stop":
                assert opened and event["index"] == closed
                closed, opened = closed + 1, False
            case "message_delta":
                assert not opened
    if kinds[-1] == "message_stop":
        assert kinds[-2] == "message_delta" and events[-1]["type"] == "message_stop"
    else:
        assert events[-1]["type"] == "error"


def check_message(message: dict[str, Any], *, beta: bool = False) -> None:
    """Check a whole answer."""
    _refuse_unknown((BetaMessage if beta else Message).model_validate(message))


def check_error(body: dict[str, Any]) -> None:
    """Check the body of an error."""
    _refuse_unknown(ErrorResponse.model_validate(body))
    assert body["error"]["message"] and "Traceback" not in body["error"]["message"]


def _refuse_unknown(value: Any) -> None:
    """Fail if a part of a value has a field that its type has not."""
    if isinstance(value, BaseModel):
        assert not value.model_extra, (type(value).__name__, value.model_extra)
        for name in type(value).model_fields:
            _refuse_unknown(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            _refuse_unknown(one)
