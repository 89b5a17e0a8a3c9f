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
        self._blocks: dict[int, Object] = {}
        self._pieces: dict[int, list[str]] = {}  # what was added to thoughts and to inputs
        self._usage: Object = {}
        self._about: Object = {}  # the message's id and model

    def read(self, event: Object) -> list[Object]:
        """See `api.EventReader`."""
        match event.get("type"):
            case "message_start":
                message = _object(event, "message")
                self._about = _about(message)
                return self._take_usage(message.get("usage"))
            case "content_block_start":
                return self._start_block(_index(event), _object(event, "content_block"))
            case "content_block_delta":
                return self._add_to_block(_index(event), _object(event, "delta"))
            case "content_block_stop":
                return self._end_block(_index(event))
            case "message_delta":
                finish = _finish(_object(event, "delta"))
                self.finished = self.finished or finish is not None
                chunks = self._take_usage(event.get("usage"))
                return [*([self._chunk({}, finish)] if finish else []), *chunks]
            case "message_stop":
                self.is_over = True
                return self.end()
        return []  # a ping, or an event of a later version, which says that others may come

    def end(self) -> list[Object]:
        """The message is complete: its thoughts can be kept."""
        self._keep_thoughts()
        if self.finished:
            return []
        self.finished = True
        return [self._chunk({}, "stop")]

    def _start_block(self, index: int, block: Object) -> list[Object]:
        self._blocks[index] = dict(block)
        self._pieces[index] = []
        match block.get("type"):
            case "text":
                return self._say("content", _text(block, "text"))
            case "thinking":
                return self._say("reasoning_content", _text(block, "thinking"))
            case "tool_use":
                function = {"name": _text(block, "name"), "arguments": ""}
                return [self._chunk(_call_delta(index, function, id=block.get("id")))]
        return []

    def _add_to_block(self, index: int, delta: Object) -> list[Object]:
        block = self._blocks.get(index)
        if block is None:
            raise NotAnAnswer("adds to a block that has not begun")
        match delta.get("type"):
            case "text_delta":
                return self._say("content", _text(delta, "text"))
            case "thinking_delta":
                self._pieces[index].append(_text(delta, "thinking"))
                return self._say("reasoning_content", _text(delta, "thinking"))
            case "signature_delta":
                block["signature"] = _text(delta, "signature")
            case "input_json_delta" if block.get("type") == "tool_use":
                piece = _text(delta, "partial_json")
                self._pieces[index].append(piece)
                return [self._chunk(_call_delta(index, {"arguments": piece}))]
        return []

    def _end_block(self, index: int) -> list[Object]:
        block = self._blocks.get(index, {})
        if block.get("type") != "tool_use" or any(self._pieces[index]):
            return []
        written = json.dumps(block.get("input") or {}, ensure_ascii=False)
        return [self._chunk(_call_delta(index, {"arguments": written}))]

    def _keep_thoughts(self) -> None:
        blocks = [
            {**block, "thinking": _text(block, "thinking") + "".join(self._pieces[index])}
            if block.get("type") == "thinking"
            else block
            for index, block in self._blocks.items()
        ]
        texts = [block["thinking"] for block in blocks if block.get("type") == "thinking"]
        self._thoughts.keep(_as_they_came(blocks), "".join(texts))

    def _say(self, name: str, text: str) -> list[Object]:
        return [self._chunk({name: text})] if text else []

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
        if block.get("type") in tuple(_THOUGHTS)  # what comes may be no name at all
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


def _index(event: Object) -> int:
    index = event.get("index")
    if not isinstance(index, int):
        raise NotAnAnswer("has no index")
    return index


def _object(event: Object, name: str) -> Object:
    value = event.get(name)
    if not isinstance(value, dict):
        raise NotAnAnswer(f"has no {name}")
    return value


def _text(block: Mapping[str, Any], name: str) -> str:
    value = block.get(name)
    return value if isinstance(value, str) else ""
