"""A reasoner that speaks Anthropic's Messages: its answers and events as chat completions.

The types are those of the SDK `anthropic`. What is sent is in `messages_body`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clara_mlx.serve.reasoner_apis.api import (
    EventReader,
    NotAnAnswer,
    chunk_of,
    usage_of,
)
from clara_mlx.serve.reasoner_apis.messages_body import write_body
from clara_mlx.serve.reasoner_apis.thoughts import Thoughts
from clara_mlx.serve.reply import Object
from clara_mlx.serve.usage import stated_tokens

# The version of the API, which each request must name.
_VERSION = "2023-06-01"

# Why an answer ended, in the words of both APIs.
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

# The blocks that thoughts come in, and their fields.
_THOUGHTS = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


class MessagesReasoner:
    """Anthropic's Messages; see `api.ReasonerApi`."""

    path = "/messages"

    def __init__(self) -> None:
        self._thoughts = Thoughts()

    def headers(self, key: str | None) -> dict[str, str]:
        """The version, and the key under the name that it has there."""
        return {"anthropic-version": _VERSION, **({"x-api-key": key} if key else {})}

    def body(self, payload: Mapping[str, Any]) -> Object:
        """See `write_body`."""
        return write_body(payload, self._thoughts)

    def completion(self, answer: Object) -> Object:
        """A message as a chat completion."""
        content = answer.get("content")
        if not isinstance(content, list) or not all(isinstance(b, dict) for b in content):
            raise NotAnAnswer("is not a message")
        texts = [_text(block, "text") for block in content if block.get("type") == "text"]
        thoughts = [block for block in content if block.get("type") == "thinking"]
        calls = [_call(block) for block in content if block.get("type") == "tool_use"]
        message: Object = {"role": "assistant", "content": "".join(texts) or None}
        if calls:
            message["tool_calls"] = calls
        if thought := "".join(_text(block, "thinking") for block in thoughts):
            message["reasoning_content"] = thought
            self._thoughts.keep(_as_they_came(content), thought)
        choice = {"index": 0, "message": message, "finish_reason": _finish(answer) or "stop"}
        given = answer.get("usage")
        usage = {"usage": _usage(given)} if isinstance(given, dict) else {}
        return {**_about(answer), "choices": [choice], **usage}

    def events(self) -> EventReader:
        """A reader of the events of one message."""
        return _MessageReader(self._thoughts)

    def error_in(self, value: Object) -> Any:
        """What is under ``error``."""
        return value.get("error") or None


class _MessageReader:
    """Reads the events of one message.

    A block's ``input`` comes in pieces after its start; some servers give the whole of it there.
    """

    def __init__(self, thoughts: Thoughts) -> None:
        self.finished = False
        self.is_over = False
        self._thoughts = thoughts
        self._blocks: dict[Any, Object] = {}
        self._usage: Object = {}
        self._about: Object = {}  # the message's id and model

    def read(self, event: Object) -> list[Object]:
        """See `api.EventReader`."""
        kind = event.get("type")
        if kind == "message_start":
            message = _object(event, "message")
            self._about = _about(message)
            return self._take_usage(message.get("usage"))
        if kind == "content_block_start":
            block = dict(_object(event, "content_block"))
            self._blocks[event.get("index")] = block
            return self._start_block(event.get("index"), block)
        if kind == "content_block_delta":
            if event.get("index") not in self._blocks:
                raise NotAnAnswer("adds to a block that has not begun")
            return self._add_to_block(event.get("index"), _object(event, "delta"))
        if kind == "content_block_stop":
            return self._end_block(event.get("index"))
        if kind == "message_delta":
            finish = _finish(_object(event, "delta"))
            self.finished = self.finished or finish is not None
            chunks = self._take_usage(event.get("usage"))
            return [*([self._chunk({}, finish)] if finish else []), *chunks]
        if kind == "message_stop":
            self.is_over = True
            return self.end()
        return []  # a ping, or an event of a later version, which says that others may come

    def end(self) -> list[Object]:
        """The message is complete: its thoughts can be kept."""
        blocks = list(self._blocks.values())
        text = "".join(_text(one, "thinking") for one in blocks if one.get("type") == "thinking")
        self._thoughts.keep(_as_they_came(blocks), text)
        if self.finished:
            return []
        self.finished = True
        return [self._chunk({}, "stop")]

    def _start_block(self, index: Any, block: Object) -> list[Object]:
        kind = block.get("type")
        if kind == "text" and _text(block, "text"):
            return [self._chunk({"content": block["text"]})]
        if kind == "thinking" and _text(block, "thinking"):
            return [self._chunk({"reasoning_content": block["thinking"]})]
        if kind == "tool_use":
            block["arguments"] = ""
            function = {"name": _text(block, "name"), "arguments": ""}
            return [self._chunk(_call_delta(index, function, id=block.get("id")))]
        return []

    def _add_to_block(self, index: Any, delta: Object) -> list[Object]:
        block = self._blocks[index]
        kind = delta.get("type")
        if kind == "text_delta":
            return [self._chunk({"content": _text(delta, "text")})]
        if kind == "thinking_delta":
            block["thinking"] = _text(block, "thinking") + _text(delta, "thinking")
            return [self._chunk({"reasoning_content": _text(delta, "thinking")})]
        if kind == "signature_delta":
            block["signature"] = _text(delta, "signature")
        if kind == "input_json_delta" and block.get("type") == "tool_use":
            block["arguments"] += _text(delta, "partial_json")
            return [self._chunk(_call_delta(index, {"arguments": _text(delta, "partial_json")}))]
        return []

    def _end_block(self, index: Any) -> list[Object]:
        block = self._blocks.get(index) or {}
        if block.get("type") != "tool_use" or block["arguments"]:
            return []
        written = json.dumps(block.get("input") or {}, ensure_ascii=False)
        return [self._chunk(_call_delta(index, {"arguments": written}))]

    def _take_usage(self, usage: Any) -> list[Object]:
        """The usage so far; the figures of a later event take the place of earlier ones."""
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}
        return [{"choices": [], "usage": _usage(self._usage), **self._about}]

    def _chunk(self, delta: Object, finish: str | None = None) -> Object:
        return chunk_of(delta, finish, **self._about)


def _as_they_came(blocks: list[Object]) -> list[Object]:
    """The blocks of thoughts, in the form in which they are sent back."""
    return [
        {name: block.get(name, "") for name in ("type", *_THOUGHTS[block["type"]])}
        for block in blocks
        if block.get("type") in _THOUGHTS
    ]


def _call(block: Object) -> Object:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": _text(block, "name"), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _call_delta(index: Any, function: Object, **more: Any) -> Object:
    return {"tool_calls": [{"index": index, "function": function, **more}]}


def _usage(given: Object) -> Object:
    cached = stated_tokens(given, "cache_read_input_tokens")
    written = stated_tokens(given, "cache_creation_input_tokens")
    prompt = stated_tokens(given, "input_tokens") + cached + written
    return usage_of(prompt, stated_tokens(given, "output_tokens"), cached)


def _about(message: Mapping[str, Any]) -> Object:
    return {name: message[name] for name in ("id", "model") if message.get(name)}


def _finish(about: Object) -> str | None:
    reason = about.get("stop_reason")
    return _FINISH.get(str(reason), "stop") if reason is not None else None


def _object(event: Object, name: str) -> Object:
    value = event.get(name)
    if not isinstance(value, dict):
        raise NotAnAnswer(f"has no {name}")
    return value


def _text(block: Mapping[str, Any], name: str) -> str:
    value = block.get(name)
    return value if isinstance(value, str) else ""
