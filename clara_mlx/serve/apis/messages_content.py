"""A conversation in Anthropic's content blocks, as messages of the inner form.

What one message has there, several have here: results of tools come under a role of their own. And
several messages of one role in a row, which that API joins, are one here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from clara_mlx.context.messages import Message
from clara_mlx.serve.errors import invalid_field

# How the line begins that Claude Code puts before the instructions. It has another value in every
# request: the server would have to read everything after it again.
_BILLING = "x-anthropic-billing-header"

# Between texts that were blocks of their own: instructions, and what a user says.
_APART = "\n\n"

# Between the texts of a tool's result, which are often its lines.
_LINES = "\n"

# Characters at the beginning of a failed result in which it may say so by itself.
_SAYS_ERROR = 200

# Fields of blocks of other kinds, such as the results of a search on the web, that hold texts.
_TEXT_FIELDS = ("title", "url", "text", "content", "stdout", "stderr", "tool_name", "error_code")

#: A part of a message in the inner form.
Part = dict[str, Any]


def read_conversation(system: Any, given: Sequence[Any]) -> list[Message]:
    """The messages of a request.

    Args:
        system: The instructions: a string or a list of blocks; None: there are none.
        given: The messages.

    Raises:
        ApiError: Something is not what Anthropic's API takes.
    """
    messages: list[Message] = []
    instructions = [] if system is None else _read_instructions(system)
    if instructions:
        messages.append({"role": "system", "content": _APART.join(instructions)})
    for index, message in enumerate(given):
        for one in _read_message(message, f"messages[{index}]"):
            _append(messages, one)
    return [_join_texts(message) for message in messages]


def _read_instructions(system: Any) -> list[str]:
    """The texts of the instructions, without the line that changes in every request."""
    texts = [_text(block, "system") for block in _blocks(system, "system")]
    kept = [_without_billing(text) for text in texts]
    return [text for text in kept if text]


def _without_billing(text: str) -> str:
    if not text.lstrip().startswith(_BILLING):
        return text
    return text.lstrip().partition("\n")[2]


# -- messages --------------------------------------------------------------------------------------


def _read_message(message: Any, where: str) -> list[Message]:
    """A message as one or several, with lists of parts for contents."""
    if not isinstance(message, dict):
        raise invalid_field(where, "must be an object")
    role = message.get("role")
    blocks = _blocks(message.get("content"), f"{where}.content")
    if role == "user":
        return _read_user(blocks, where)
    if role == "assistant":
        return [_read_assistant(blocks, where)]
    if role == "system":
        text = _APART.join(chain.from_iterable(map(_texts_in, blocks)))
        return [{"role": "system", "content": text}]
    raise invalid_field(f"{where}.role", "must be user, assistant or system")


def _blocks(content: Any, where: str) -> list[Part]:
    """A content as a list of blocks, each an object with a type."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise invalid_field(where, "must be a string or a list of blocks")
    for index, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise invalid_field(f"{where}[{index}]", "must be an object with a type")
    return content


def _read_user(blocks: Sequence[Part], where: str) -> list[Message]:
    """What a user sends: the results of tools, which follow their calls at once, then the rest."""
    results = [_read_result(block, where) for block in blocks if block["type"] == "tool_result"]
    said = [_read_part(block, where) for block in blocks if block["type"] != "tool_result"]
    parts = list(chain.from_iterable(said))
    return [*results, *([{"role": "user", "content": parts}] if parts or not results else [])]


def _read_result(block: Part, where: str) -> Message:
    content = block.get("content")
    parts = [
        part
        for inner in _blocks("" if content is None else content, f"{where}: a result's content")
        for part in _read_part(inner, where)
    ]
    if block.get("is_error") is True:
        parts = _marked_as_error(parts)
    call = _string(block, "tool_use_id", where)
    return {"role": "tool", "tool_call_id": call, "content": parts}


def _marked_as_error(parts: list[Part]) -> list[Part]:
    """The parts of a failed result, which says so: in the inner form there is no field for it."""
    says = next((p["text"] for p in parts if p["type"] == "text"), "")[:_SAYS_ERROR].lower()
    if "error" in says:
        return parts
    if parts and parts[0]["type"] == "text":
        return [_text_part(f"Error: {parts[0]['text']}"), *parts[1:]]
    return [_text_part("Error"), *parts]


def _read_assistant(blocks: Sequence[Part], where: str) -> Message:
    parts: list[Part] = []
    thoughts: list[str] = []
    calls: list[Part] = []
    for block in blocks:
        match block["type"]:
            case "text":
                parts.append(_text_part(_text(block, where)))
            case "thinking":
                thoughts += _texts_in(block.get("thinking"))
            case "tool_use":
                calls.append(_read_call(block, where))
            case _:
                texts = _texts_in(block)
                parts += [_text_part("\n".join(["", *texts, ""]))] if texts else []
    message: Message = {"role": "assistant", "content": parts}
    if thoughts:
        message["reasoning_content"] = _APART.join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _read_call(block: Part, where: str) -> Part:
    given = block.get("input")
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    function = {"name": _string(block, "name", where), "arguments": arguments}
    return {"id": _string(block, "id", where), "type": "function", "function": function}


def _append(messages: list[Message], message: Message) -> None:
    """Add a message; to the one before it, if both are one turn."""
    last = messages[-1] if messages else None
    is_same_turn = (
        last is not None
        and last["role"] == message["role"]
        and message["role"] in ("user", "assistant")
        and "tool_calls" not in last
    )
    if last is None or not is_same_turn:
        messages.append(message)
        return
    if message["role"] == "assistant" and last["content"] and message["content"]:
        last["content"].append(_text_part(_APART))
    last["content"] += message["content"]
    if "tool_calls" in message:
        last["tool_calls"] = message["tool_calls"]
    thoughts = [m["reasoning_content"] for m in (last, message) if "reasoning_content" in m]
    if thoughts:
        last["reasoning_content"] = _APART.join(thoughts)


def _join_texts(message: Message) -> Message:
    """The message with one string as its content, if that is only text."""
    content = message["content"]
    if isinstance(content, str) or any(part["type"] != "text" for part in content):
        return message
    # The blocks of an answer continue each other.
    between = {"user": _APART, "tool": _LINES, "assistant": ""}[message["role"]]
    return {**message, "content": between.join(part["text"] for part in content)}


# -- parts -----------------------------------------------------------------------------------------


def _read_part(block: Part, where: str) -> list[Part]:
    """A block of a user, or of a result, as parts of the inner form."""
    source = block.get("source")
    match block["type"], source:
        case "text", _:
            return [_text_part(_text(block, where))]
        case "image", {"type": "base64", "media_type": str(kind), "data": str(data)}:
            return [{"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}]
        case "image", {"type": "url", "url": str(url)}:
            return [{"type": "image_url", "image_url": {"url": url}}]
        case "document", {"type": "text", "data": str(text)}:
            return list(map(_text_part, [*_texts_in({"title": block.get("title")}), text]))
        case "document", {"type": "content", "content": content}:
            inner = _blocks(content, f"{where}: a document's content")
            return list(chain.from_iterable(_read_part(one, where) for one in inner))
        case "document", {"type": "base64", "media_type": str(kind), "data": str(data)}:
            file = {"filename": str(block.get("title") or "document")}
            return [{"type": "file", "file": file | {"file_data": f"data:{kind};base64,{data}"}}]
        case (("image" | "document"), {"type": str(kind)}):
            # A file that was uploaded to Anthropic, or that it would have to fetch.
            return [_text_part(f"({block['type']} that this server can't fetch: {kind})")]
        case (("image" | "document"), _):
            raise invalid_field(f"{where}: the source of the {block['type']}", "is missing")
        case "thinking" | "redacted_thinking", _:
            return []
    return list(map(_text_part, _texts_in(block)))


def _texts_in(value: Any) -> list[str]:
    """The texts in a block of any kind, in order; nothing of what can't be read."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, dict):
        value = [value[name] for name in _TEXT_FIELDS if name in value]
    return list(chain.from_iterable(map(_texts_in, value))) if isinstance(value, list) else []


def _text_part(text: str) -> Part:
    return {"type": "text", "text": text}


def _text(block: Part, where: str) -> str:
    return _string(block, "text", where)


def _string(block: Part, name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise invalid_field(f"{where}: the {name} of a {block['type']} block", "must be a string")
    return value


def count_blocks(messages: Iterable[Any]) -> int:
    """The number of blocks in messages, those in results included, however they are made."""
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    inner = [block.get("content") for block in blocks if isinstance(block, dict)]
    return len(blocks) + sum(len(content) for content in inner if isinstance(content, list))
