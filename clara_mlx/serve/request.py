"""A client's chat request: checked, and brought into the one form that every server takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clara_mlx.context.messages import Message, is_instruction
from clara_mlx.serve.errors import ApiError

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
# Fields that are ours to set, or that are read into fields of their own.
_OURS = frozenset(("messages", "tools", "model", "stream", "stream_options"))
# What stands where a client lost the result of a call, or the call of a result.
_LOST_RESULT = "(the result of this call is not in the conversation any more)"
_LOST_CALL = "[result of an earlier call]\n"


@dataclass(frozen=True)
class ChatRequest:
    """A chat request without what clients do differently.

    Attributes:
        messages: instructions have the role system, those at the beginning are one message; every
            tool result has its call, and the other way round; nulls of optional fields are gone.
        tools: those of the client, by name, whatever order they came in.
        options: every other field that was given and is not null.
        stream: the answer is wanted piece by piece.
        usage: a stream is to end with the usage.
        key: names this request; an identical one has the same.
    """

    messages: list[Message]
    tools: list[dict[str, Any]]
    options: dict[str, Any]
    stream: bool
    usage: bool
    key: bytes

    @property
    def has_images(self) -> bool:
        """Whether a message has a part that is not text."""
        parts = [part for m in self.messages for part in m["content"] if isinstance(part, dict)]
        return any(part.get("type") != "text" for part in parts)

    @property
    def is_deterministic(self) -> bool:
        """Whether the same request has the same answer, as far as its options say."""
        return not self.options.get("temperature") or "seed" in self.options


def parse(body: Mapping[str, Any], session: str | None) -> ChatRequest:
    """Check a request and bring it into form.

    Raises:
        ApiError: a field is not what OpenAI's API takes, or ``n`` is more than 1.
    """
    given = {key: value for key, value in body.items() if value is not None}
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list with at least one message")
    for index, message in enumerate(messages):
        _check(message, f"messages[{index}]")
    options = given.get("stream_options", {})
    stream = given.get("stream", False)
    if not isinstance(stream, bool) or not isinstance(options, dict):
        raise _wrong("stream", "must be true or false, and stream_options an object")
    if given.get("n", 1) != 1:
        raise _wrong("n", "must be 1: this server gives one choice")
    _check_numbers(given)
    canonical = json.dumps([body, session], sort_keys=True).encode()
    return ChatRequest(
        messages=_merged(_paired([_cleaned(message) for message in messages])),
        tools=_tools(given.get("tools", [])),
        options={key: value for key, value in given.items() if key not in _OURS},
        stream=stream,
        usage=stream and options.get("include_usage") is True,
        key=hashlib.sha256(canonical).digest(),
    )


def _check(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise _wrong(where, "must be an object")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise _wrong(f"{where}.role", f"must be one of {', '.join(sorted(_ROLES))}")
    if isinstance(content, list):
        for index, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if not isinstance(kind, str) or (
                kind == "text" and not isinstance(part.get("text"), str)
            ):
                raise _wrong(f"{where}.content[{index}]", "must be an object with a type")
    elif not (content is None or isinstance(content, str)):
        raise _wrong(f"{where}.content", "must be a string or a list of parts")
    calls = message.get("tool_calls")
    if calls is not None:
        if role != "assistant" or not isinstance(calls, list):
            raise _wrong(f"{where}.tool_calls", "must be a list, in a message of the assistant")
        for index, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise _wrong(f"{where}.tool_calls[{index}]", "must have a function with a name")
            if not isinstance(call.get("id"), str):
                raise _wrong(f"{where}.tool_calls[{index}].id", "must be a string")
            if not isinstance(function.get("arguments", ""), str | dict):
                raise _wrong(f"{where}.tool_calls[{index}].function.arguments", "must be a string")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise _wrong(f"{where}.tool_call_id", "must be a string")


def _check_numbers(given: Mapping[str, Any]) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        value = given.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _wrong(name, "must be a whole number of at least 1")
    for name, most in (("temperature", 2), ("top_p", 1)):
        value = given.get(name, 0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
            raise _wrong(name, f"must be a number from 0 to {most}")
    stop = given.get("stop", [])
    if not isinstance(stop, str) and not (
        isinstance(stop, list) and all(isinstance(word, str) for word in stop)
    ):
        raise _wrong("stop", "must be a string or a list of strings")


def _tools(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list):
        raise _wrong("tools", "must be a list")
    for index, tool in enumerate(given):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"tools[{index}]", "must be a function with a name")
    return sorted(given, key=lambda tool: str(tool["function"]["name"]))


def _cleaned(message: Mapping[str, Any]) -> Message:
    copy = {key: value for key, value in message.items() if value is not None}
    if copy["role"] == "developer":
        copy["role"] = "system"
    copy.setdefault("content", "")
    if not copy.get("tool_calls"):
        copy.pop("tool_calls", None)
    # Servers read one or the other.
    thought = copy.pop("reasoning", None) or copy.get("reasoning_content")
    if isinstance(thought, str) and thought and copy["role"] == "assistant":
        copy["reasoning_content"] = thought
    else:
        copy.pop("reasoning_content", None)
    return copy


def _paired(messages: Sequence[Message]) -> list[Message]:
    """Every call with its result: clients that shorten a history leave one without the other."""
    paired: list[Message] = []
    waiting: dict[str, None] = {}
    for message in messages:
        if message["role"] == "tool":
            id = message["tool_call_id"]
            if id in waiting:
                del waiting[id]
                paired.append(message)
                continue
            content = message["content"]
            text = (
                content if isinstance(content, str) else "".join(p.get("text", "") for p in content)
            )
            message = {"role": "user", "content": _LOST_CALL + text}
        paired += _lost(waiting)
        waiting = {call["id"]: None for call in message.get("tool_calls", [])}
        paired.append(message)
    return paired + _lost(waiting)


def _lost(ids: Mapping[str, None]) -> list[Message]:
    return [{"role": "tool", "tool_call_id": id, "content": _LOST_RESULT} for id in ids]


def _merged(messages: list[Message]) -> list[Message]:
    """Instructions at the beginning as one message: some templates take no second one."""
    count = next((i for i, m in enumerate(messages) if not is_instruction(m)), len(messages))
    texts = [m["content"] for m in messages[:count]]
    if count < 2 or not all(isinstance(text, str) for text in texts):
        return messages
    return [{"role": "system", "content": "\n\n".join(texts)}, *messages[count:]]


def _wrong(field: str, what: str) -> ApiError:
    return ApiError(400, f"{field} {what}", param=field, code="invalid_value")
