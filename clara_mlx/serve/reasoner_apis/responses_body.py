"""A body of chat completions written as one of OpenAI's Responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clara_mlx.context.messages import is_instruction
from clara_mlx.serve.reasoner_apis.parts import (
    calls_of,
    chosen_tool,
    parts_of,
    schema_of,
    split_instructions,
)
from clara_mlx.serve.reasoner_apis.thoughts import Thoughts
from clara_mlx.serve.reply import Object

# Options that have the same name and meaning in both.
_SAME = ("stream", "temperature", "top_p", "top_logprobs", "parallel_tool_calls", "user")


def write_body(payload: Mapping[str, Any], thoughts: Thoughts) -> Object:
    """The body of a request.

    Nothing is to be stored: each request has the whole conversation. Options that the API does not
    have are left out: ``stop``, ``seed``, penalties.

    Args:
        payload: The body of chat completions.
        thoughts: Those that are known in the form in which the API wants them back.

    Raises:
        ApiError: A message has a part that the API has no form for.
    """
    system, messages = split_instructions(payload["messages"])
    items = [item for message in messages for item in _items(message, thoughts)]
    body: Object = {"model": payload["model"], "input": items, "store": False}
    if system:
        body["instructions"] = system
    limit = payload.get("max_completion_tokens") or payload.get("max_tokens")
    if limit:
        body["max_output_tokens"] = limit
    body |= {name: payload[name] for name in _SAME if payload.get(name) is not None}
    if effort := payload.get("reasoning_effort"):
        body["reasoning"] = {"effort": effort}
    if form := _format(payload):
        body["text"] = {"format": form}
    if tools := payload.get("tools"):
        body["tools"] = [_tool(tool["function"]) for tool in tools]
        choice = payload.get("tool_choice")
        if name := chosen_tool(choice):
            body["tool_choice"] = {"type": "function", "name": name}
        elif isinstance(choice, str):
            body["tool_choice"] = choice
    return body


def _items(message: Mapping[str, Any], thoughts: Thoughts) -> list[Object]:
    """The items that a message amounts to."""
    said = list(parts_of(message))
    role = message["role"]
    if role == "assistant":
        text = "".join(value for kind, value in said if kind == "text")
        calls = [
            {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
            for id, name, arguments in calls_of(message)
        ]
        spoken = [{"role": "assistant", "content": text}] if text else []
        return [*thoughts.of(message), *spoken, *calls]
    if role == "tool":
        id = message["tool_call_id"]
        return [{"type": "function_call_output", "call_id": id, "output": _content(said)}]
    return [{"role": "developer" if is_instruction(message) else "user", "content": _content(said)}]


def _content(said: list[tuple[str, Any]]) -> str | list[Object]:
    """Parts in the API's form: one text if there is nothing else."""
    if all(kind == "text" for kind, _ in said):
        return "".join(value for _, value in said)
    return [
        {"type": "input_text", "text": value}
        if kind == "text"
        else {"type": "input_image", "image_url": value, "detail": "auto"}
        for kind, value in said
    ]


def _tool(function: Mapping[str, Any]) -> Object:
    parameters = function.get("parameters")
    if not isinstance(parameters, dict):
        parameters = {"type": "object", "properties": {}}
    # By default this API is strict, and refuses the schemas of most tools.
    strict = function.get("strict") is True
    tool: Object = {"type": "function", "name": function["name"], "parameters": parameters}
    if isinstance(function.get("description"), str):
        tool["description"] = function["description"]
    return tool | {"strict": strict}


def _format(payload: Mapping[str, Any]) -> Object | None:
    """The format of the answer that a ``response_format`` demands, if it does."""
    form = payload.get("response_format")
    if schema := schema_of(payload):
        names = ("name", "schema", "strict", "description")
        return {"type": "json_schema", **{n: schema[n] for n in names if n in schema}}
    return {"type": "json_object"} if form == {"type": "json_object"} else None
