"""Chat messages as OpenAI writes them: their texts, their units, and the chain that names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: A chat message: role, content, and perhaps tool_calls, tool_call_id, name.
Message = dict[str, Any]

_INSTRUCTION_ROLES = ("system", "developer")


@dataclass(frozen=True)
class Piece:
    """A text of a message that a block can stand for.

    Attributes:
        role: The role of the message.
        part: The place in the message: ``content``, ``content.2`` (a text part of a list) or
            ``arguments.0`` (the arguments of a call, as a JSON string).
        text: The text itself.
        tool: The tool of the call that it belongs to; None if it belongs to none.
        arguments: The arguments of the call that it is the result of; None if it is not a result.
        kept: What is remembered in its place, in a form that is easier to read and to search;
            None: the text itself.
    """

    role: str
    part: str
    text: str
    tool: str | None = None
    arguments: str | None = None
    kept: str | None = None


def content_text(message: Mapping[str, Any]) -> str:
    """The text of a message; images and other parts are left out."""
    return "".join(content_texts(message))


def content_texts(message: Mapping[str, Any]) -> list[str]:
    """The texts of a message: its content, or those of the content's parts that are text."""
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content or [] if _is_text(part)]


def is_instruction(message: Mapping[str, Any]) -> bool:
    """Whether the role is system or developer."""
    return message.get("role") in _INSTRUCTION_ROLES


def head_length(messages: Sequence[Mapping[str, Any]]) -> int:
    """The number of messages before the first answer: the instructions and the task."""
    for index, message in enumerate(messages):
        if message.get("role") in ("assistant", "tool"):
            return index
    return len(messages)


def units(messages: Sequence[Mapping[str, Any]], start: int = 0) -> list[tuple[int, int]]:
    """Spans ``(first, end)`` of messages that belong together: a call with its results, or one."""
    spans: list[tuple[int, int]] = []
    for index in range(start, len(messages)):
        if messages[index].get("role") == "tool" and spans:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return spans


def calls_by_result(
    messages: Sequence[Mapping[str, Any]], first: int = 0
) -> dict[int, tuple[str, str]]:
    """By the index of a tool result, the name and arguments of its call.

    If several calls have the same id, the last one before the result counts.

    Args:
        messages: The messages.
        first: The index from which on results are looked at.
    """
    calls: dict[str, Mapping[str, Any]] = {}
    earlier: dict[str, Mapping[str, Any]] | None = None
    found: dict[int, tuple[str, str]] = {}
    for index, message in enumerate(messages[first:], first):
        if message.get("tool_calls"):
            calls.update(_calls_by_id(message))
        if message.get("role") == "tool":
            id = str(message.get("tool_call_id"))
            if id not in calls and earlier is None:  # it came late, or its call is lost
                earlier = {k: v for one in messages[:first] for k, v in _calls_by_id(one).items()}
            call = calls[id] if id in calls else (earlier or {}).get(id)
            unknown = (str(message.get("name") or "tool"), "")
            found[index] = unknown if call is None else _name_and_arguments(call)
    return found


def _calls_by_id(message: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(call.get("id")): call for call in message.get("tool_calls") or ()}


def calls_in(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The name and the arguments (JSON) of each call in a message."""
    return [_name_and_arguments(call) for call in message.get("tool_calls") or ()]


def pieces(message: Mapping[str, Any], call: tuple[str, str] | None = None) -> list[Piece]:
    """The texts of a message.

    Args:
        message: The message.
        call: The name and arguments of the call that it answers, if it is a tool result.
    """
    role = str(message.get("role"))
    tool, arguments = call or (None, None)
    content = message.get("content")
    found = []
    if isinstance(content, str):
        found.append(Piece(role, "content", content, tool, arguments))
    elif isinstance(content, list):
        found += [
            Piece(role, f"content.{i}", part["text"], tool, arguments)
            for i, part in enumerate(content)
            if _is_text(part)
        ]
    for i, (tool, arguments) in enumerate(calls_in(message)):
        found.append(Piece(role, f"arguments.{i}", arguments, tool))
    return [piece for piece in found if piece.text]


def replace_texts(message: Mapping[str, Any], texts: Mapping[str, str]) -> Message:
    """Copy a message with other texts in the named parts; the message itself is not changed."""
    copy = dict(message)
    for part, text in texts.items():
        kind, _, index = part.partition(".")
        if kind == "arguments":
            calls = list(copy["tool_calls"])
            function = dict(calls[int(index)]["function"])
            whole = isinstance(function.get("arguments"), str)
            function["arguments"] = text if whole else json.loads(text)
            calls[int(index)] = {**calls[int(index)], "function": function}
            copy["tool_calls"] = calls
        elif index:
            parts = list(copy["content"])
            parts[int(index)] = {**parts[int(index)], "text": text}
            copy["content"] = parts
        else:
            copy["content"] = text
    return copy


def with_note(message: Mapping[str, Any], note: str) -> Message:
    """A copy with a note after its content."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": note}]}
    return {**message, "content": (content or "") + note}


def chains(
    messages: Sequence[Mapping[str, Any]], session: str, before: bytes | None = None
) -> list[bytes]:
    """For each message, a digest of the session's conversation up to and including it.

    What does not change the conversation does not change the digest: how arguments are written,
    whether a text is alone or in a list, nulls, reasoning. System and developer messages don't
    count: agents rewrite them, and append some for one request only.

    Args:
        messages: The messages.
        session: The conversation's name.
        before: The chain that ends before them; None: they begin the conversation.
    """
    digest = before or hashlib.sha256(session.encode("utf-8", "surrogatepass")).digest()
    found = []
    for message in messages:
        if not is_instruction(message):
            digest = hashlib.sha256(digest + _canonical_bytes(message)).digest()
        found.append(digest)
    return found


def message_digest(message: Mapping[str, Any]) -> bytes:
    """A digest of one message alone; equal, as in `chains`, for messages that say the same."""
    return hashlib.sha256(_canonical_bytes(message)).digest()


def _canonical_bytes(message: Mapping[str, Any]) -> bytes:
    """A message as bytes that are equal for messages that say the same."""
    content = message.get("content")
    if has_only_text(content):
        content = content_text(message)
    ids = [call.get("id") for call in message.get("tool_calls") or ()]
    calls = [(name, _parse(arguments)) for name, arguments in calls_in(message)]
    said = (
        message.get("role"),
        content or "",
        message.get("name"),
        message.get("tool_call_id"),
        ids,
        calls,
    )
    return json.dumps(said, sort_keys=True, default=str).encode()


def has_only_text(content: Any) -> bool:
    """Whether a content is a list of texts, and of nothing else."""
    return isinstance(content, list) and all(_is_text(part) for part in content)


def _name_and_arguments(call: Mapping[str, Any]) -> tuple[str, str]:
    function = call.get("function") or {}
    arguments = function.get("arguments") or ""
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False, sort_keys=True)
    return str(function.get("name") or "tool"), arguments


def _parse(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str) and "image_url" not in part
