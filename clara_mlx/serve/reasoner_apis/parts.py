"""The parts of messages and the calls in them, as the modules beside this one need them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from clara_mlx.context.messages import content_text, is_instruction
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.reply import Object


def split_instructions(
    messages: list[Mapping[str, Any]],
) -> tuple[str, list[Mapping[str, Any]]]:
    """The text of the instructions that a conversation begins with, and the rest of it."""
    first = next((i for i, m in enumerate(messages) if not is_instruction(m)), len(messages))
    texts = [content_text(message) for message in messages[:first]]
    return "\n\n".join(text for text in texts if text), messages[first:]


def parts_of(message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts of a message that are not empty: ("text", text) and ("image", its URL).

    Raises:
        ApiError: There is a part of another kind.
    """
    content = message.get("content")
    if isinstance(content, str) or content is None:
        content = [{"type": "text", "text": content or ""}]
    for part in content:
        kind = part.get("type")
        if kind == "text":
            if part["text"]:
                yield "text", part["text"]
        elif kind == "image_url":
            url = part.get("image_url")
            yield "image", url.get("url") if isinstance(url, dict) else url
        else:
            raise ApiError(
                400,
                f"the reasoner's API has no form for a part of type {kind!r}",
                param="messages",
                code="unsupported_content",
            )


def calls_of(message: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The id, the name and the arguments (JSON) of each call of a message."""
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = function.get("arguments") or "{}"
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        yield str(call["id"]), str(function["name"]), arguments


def chosen_tool(choice: Any) -> str | None:
    """The name of the one tool that a ``tool_choice`` demands."""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def schema_of(payload: Mapping[str, Any]) -> Object | None:
    """The ``json_schema`` that a payload's ``response_format`` demands: name, schema, strict."""
    form = payload.get("response_format")
    schema = form.get("json_schema") if isinstance(form, dict) else None
    return schema if isinstance(schema, dict) else None
