"""A body of chat completions written as one of Anthropic's Messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from clara_mlx.serve.json_values import parse_finite
from clara_mlx.serve.reasoner_apis.parts import (
    calls_of,
    chosen_tool,
    parts_of,
    schema_of,
    split_instructions,
)
from clara_mlx.serve.reasoner_apis.thoughts import Thoughts
from clara_mlx.serve.reply import Object

# The API wants a limit for each answer; tokens, if the client and the gateway give none. All
# current models write as many.
_MAX_TOKENS = 32_000

# The highest temperature that the API takes; chat completions take 2.
_HOTTEST = 1.0

# Options that have the same name and meaning in both, or that only this API's clients send.
_SAME = ("stream", "temperature", "top_p", "top_k", "thinking", "output_config", "service_tier")

# Marks a block up to which the prompt is kept for the next request.
_KEEP = {"cache_control": {"type": "ephemeral"}}

# What a conversation begins with that would begin with an answer.
_BEGINNING = "(The conversation begins with an answer.)"


def write_body(payload: Mapping[str, Any], thoughts: Thoughts) -> Object:
    """The body of a request.

    Options that the API does not have are left out: ``seed``, penalties, ``logprobs``, a
    ``response_format`` without a schema, and ``reasoning_effort``, which not all models take.

    Args:
        payload: The body of chat completions.
        thoughts: Those that are known in the form in which the API wants them back.

    Raises:
        ApiError: A message has a part that the API has no form for.
    """
    system, messages = split_instructions(payload["messages"])
    body: Object = {
        "model": payload["model"],
        "max_tokens": payload.get("max_completion_tokens")
        or payload.get("max_tokens")
        or _MAX_TOKENS,
        "messages": _messages(messages, thoughts),
    }
    if system:
        body["system"] = system
    body |= {name: payload[name] for name in _SAME if payload.get(name) is not None}
    if "temperature" in body:
        body["temperature"] = min(body["temperature"], _HOTTEST)
    if stop := payload.get("stop"):
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if isinstance(user := payload.get("user"), str):
        body["metadata"] = {"user_id": user}
    schema = schema_of(payload)
    if schema and isinstance(schema.get("schema"), dict):
        form = {"type": "json_schema", "schema": schema["schema"]}
        body["output_config"] = {**body.get("output_config", {}), "format": form}
    return body | _tools(payload, messages)


def _tools(payload: Mapping[str, Any], messages: list[Mapping[str, Any]]) -> Object:
    """The tools and which of them are to be called.

    A conversation with calls in it must come with tools, even if there are none to call any more.
    """
    tools = [_tool(tool["function"]) for tool in payload.get("tools") or ()]
    if not tools:
        named = dict.fromkeys(name for m in messages for _, name, _ in calls_of(m))
        if not named:
            return {}
        return {"tools": [_tool({"name": n}) for n in named], "tool_choice": {"type": "none"}}
    given = payload.get("tool_choice")
    choice: Object = {"type": {"none": "none", "required": "any"}.get(str(given), "auto")}
    if name := chosen_tool(given):
        choice = {"type": "tool", "name": name}
    if payload.get("parallel_tool_calls") is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    is_default = choice == {"type": "auto"}
    return {"tools": tools} if is_default else {"tools": tools, "tool_choice": choice}


def _tool(function: Mapping[str, Any]) -> Object:
    schema = function.get("parameters")
    schema = schema if isinstance(schema, dict) else {}
    tool: Object = {"name": function["name"], "input_schema": {"type": "object", **schema}}
    if isinstance(function.get("description"), str):
        tool["description"] = function["description"]
    return tool


def _messages(messages: Iterable[Mapping[str, Any]], thoughts: Thoughts) -> list[Object]:
    """The messages, of which two in a row never have the same role."""
    written: list[Object] = []
    for message in messages:
        role, blocks = _blocks(message, thoughts)
        if not blocks:
            continue
        if not written and role == "assistant":
            written.append(_user_text(_BEGINNING))
        if written and written[-1]["role"] == role:
            written[-1]["content"] += blocks
        else:
            written.append({"role": role, "content": blocks})
    if not written:
        written.append(_user_text(_BEGINNING))
    # The API keeps nothing of a prompt unless it is asked to, up to a block that is marked.
    last = written[-1]["content"]
    last[-1] = {**last[-1], **_KEEP}
    return written


def _user_text(text: str) -> Object:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def _blocks(message: Mapping[str, Any], thoughts: Thoughts) -> tuple[str, list[Object]]:
    """The role and the content of a message; an instruction amid the conversation is the user's."""
    # The API refuses a text of white space alone.
    parts = [part for part in parts_of(message) if part[0] != "text" or part[1].strip()]
    said = [_block(kind, value) for kind, value in parts]
    role = message["role"]
    if role == "assistant":
        calls = [
            {"type": "tool_use", "id": _id(id), "name": name, "input": parse_finite(arguments)}
            for id, name, arguments in calls_of(message)
        ]
        return "assistant", [*thoughts.of(message), *said, *calls]
    if role == "tool":
        result: Object = {"type": "tool_result", "tool_use_id": _id(message["tool_call_id"])}
        return "user", [{**result, "content": said} if said else result]
    return "user", said


def _id(id: str) -> str:
    """The id of a call with the characters that the API takes; other servers use more."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in id) or "_"


def _block(kind: str, value: Any) -> Object:
    if kind == "text":
        return {"type": "text", "text": value}
    about, _, data = str(value).partition(",")
    kind, _, coding = about.removeprefix("data:").partition(";")
    if about.startswith("data:") and coding == "base64":
        return {
            "type": "image",
            "source": {"type": "base64", "media_type": kind, "data": data},
        }
    return {"type": "image", "source": {"type": "url", "url": value}}
