"""The items of a Responses request as the messages of a conversation.

A turn of the assistant is several items there (reasoning, text, calls) and one message here. An
item that this server can't have any use for is left out; none of them ends a conversation.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from clara_mlx.context.fold_form import ANSWER, CALLED, fold_messages
from clara_mlx.context.messages import Message
from clara_mlx.serve.apis.responses_tools import INPUT, Tools
from clara_mlx.serve.errors import ApiError, invalid_field
from clara_mlx.tool_outputs.quoting import MARKER

logger = logging.getLogger(__name__)

_ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}

# Types of parts that are text.
_TEXTS = frozenset(("input_text", "output_text", "text", "summary_text", "reasoning_text"))

# Types of parts that a tool's output may have, besides images; a list of anything else is data.
_OUTPUT_PARTS = ("input_text", "output_text", "text", "input_file")

# What OpenAI's servers did in the middle of an answer, and what only they can read.
_HOSTED = frozenset(
    (
        *("web_search_call", "file_search_call", "image_generation_call", "code_interpreter_call"),
        *("mcp_list_tools", "mcp_approval_request", "mcp_approval_response"),
        *("additional_tools", "configuration_update", "compaction_trigger"),
    )
)
_OUTPUTS = ("_call_output", "tool_search_output", "program_output")
_COMPACTIONS = ("compaction", "compaction_summary", "context_compaction")

# Fields of a call's item that are no arguments.
_NOT_ARGUMENTS = frozenset(("type", "id", "call_id", "status", "caller", "created_by"))

# Characters of the longest handle.
_HANDLE_CHARACTERS = 66

# Placeholder for what another service compacted.
_UNREADABLE = (
    "(An earlier part of this conversation was compacted by another service, and can't be read "
    "here.)"
)


def read_items(items: Sequence[Any], tools: Tools, field: str) -> list[Message]:
    """The messages of a conversation.

    Args:
        items: The ``input`` of a request, or its ``instructions``.
        tools: The tools of the request, by whose names calls are known.
        field: The name of the field that they are in.

    Raises:
        ApiError: An item is not what the API takes.
    """
    conversation = _Conversation(tools)
    for index, item in enumerate(items):
        where = f"{field}[{index}]"
        if not isinstance(item, dict):
            raise invalid_field(where, "must be an object")
        following = items[index + 1] if index + 1 < len(items) else None
        conversation.add(item, where, following)
    return conversation.messages


class _Conversation:
    """The messages so far, the last of which may be an assistant's that more items belong to."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._messages: list[Message] = []
        self._open: Message | None = None
        self._ids: dict[str, str] = {}  # other ids of calls, by which some outputs name them

    @property
    def messages(self) -> list[Message]:
        """The messages; reasoning that led to nothing is left out."""
        return [m for m in self._messages if m["role"] != "assistant" or _says_something(m)]

    def add(self, item: Mapping[str, Any], where: str, following: Any) -> None:
        """Add an item; ``following`` is the next one."""
        kind = item.get("type") or "message"
        if not isinstance(kind, str):
            raise invalid_field(f"{where}.type", "must be a string")
        if kind == "message" or (kind not in _HOSTED and "role" in item):
            self._say(item, where)
        elif kind == "reasoning":
            self._think(item, where)
        elif kind == "item_reference":
            self._refer(item, where)
        elif kind in _COMPACTIONS:
            self._restore(item, following)
        elif kind == "mcp_call":
            self._call_elsewhere(item, where)
        elif kind in _HOSTED:
            pass
        elif kind.endswith(_OUTPUTS):
            self._give(item, kind, where)
        elif kind.endswith("_call") or kind == "program":
            self._call(item, kind, where)
        elif "content" in item:  # what another agent says, for example
            self._say({**item, "role": "user"}, where)
        else:
            logger.info("an item of the type %s is left out: it is not known here", kind[:100])

    # -- what was said -----------------------------------------------------------------------------

    def _say(self, item: Mapping[str, Any], where: str) -> None:
        given = item.get("role")
        role = _ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            raise invalid_field(f"{where}.role", f"must be one of {', '.join(sorted(_ROLES))}")
        content = read_content(item.get("content"), f"{where}.content")
        if role != "assistant":
            self._put({"role": role, "content": content})
            return
        if not isinstance(content, str):
            content = "".join(str(part.get("text", "")) for part in content)
        message = self._assistant()
        # Texts of one turn: before its calls they are several, after them the text goes on.
        gap = "\n\n" if message["content"] and content and "tool_calls" not in message else ""
        message["content"] += gap + content

    def _think(self, item: Mapping[str, Any], where: str) -> None:
        texts: list[str] = []
        for name in ("content", "summary"):
            parts = item.get(name)
            if parts is not None and not isinstance(parts, list):
                raise invalid_field(f"{where}.{name}", "must be a list")
            texts = texts or [part for part in map(_text_of, parts or ()) if part]
        if texts:
            message = self._assistant()
            before = message.get("reasoning_content")
            message["reasoning_content"] = "\n\n".join([*([before] if before else []), *texts])

    def _refer(self, item: Mapping[str, Any], where: str) -> None:
        # Reasoning can be left out without harm; of anything else the conversation would be wrong.
        if not str(item.get("id")).startswith("rs_"):
            raise ApiError(
                400,
                f"{where} refers to an item, but this server keeps none: send the item itself",
                param=where,
                code="item_not_kept",
            )

    def _restore(self, item: Mapping[str, Any], following: Any) -> None:
        """Put a compaction in its place; whether this memory made it is looked up later."""
        text = item.get("encrypted_content")
        if not isinstance(text, str) or not text.startswith(f"{MARKER}m-"):
            self._put({"role": "assistant", "content": _UNREADABLE})
            return
        handle = text[len(MARKER) :].partition(":")[0][:_HANDLE_CHARACTERS]
        # Before a user's words it is the assistant's turn; in the middle of one it is no turn.
        is_turn = isinstance(following, dict) and following.get("role") == "user"
        form = ANSWER if is_turn or not self._tools.sent else CALLED
        for message in fold_messages(form, handle, text):
            self._put(message)

    # -- calls -------------------------------------------------------------------------------------

    def _call(self, item: Mapping[str, Any], kind: str, where: str) -> None:
        """Add a call that the client answers, of any of the types that there are."""
        id = item.get("call_id") or item.get("id")
        if not isinstance(id, str):
            raise invalid_field(f"{where}.call_id", "must be a string")
        self._ids[str(item.get("id"))] = id
        name = item.get("name", kind.removesuffix("_call"))
        if not isinstance(name, str) or not name:
            raise invalid_field(f"{where}.name", "must be a string")
        if kind == "function_call":
            arguments = item.get("arguments")
        elif kind == "custom_tool_call":
            arguments = {INPUT: item.get("input")}
        else:
            arguments = {k: v for k, v in item.items() if k not in _NOT_ARGUMENTS}
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments or {}, ensure_ascii=False)
        function = {"name": self._tools.sent_name(item.get("namespace"), name)}
        call = {"id": id, "type": "function", "function": function | {"arguments": arguments}}
        self._assistant().setdefault("tool_calls", []).append(call)

    def _give(self, item: Mapping[str, Any], kind: str, where: str) -> None:
        """Add what a call gave."""
        id = item.get("call_id") or self._ids.get(str(item.get("id")), item.get("id"))
        if not isinstance(id, str):
            raise invalid_field(f"{where}.call_id", "must be a string")
        fields = (item.get(name) for name in ("output", "result", "tools"))
        given = next((one for one in fields if one is not None), "")
        if kind == "computer_call_output" and isinstance(given, dict):
            given = [{**given, "type": "input_image"}]
        is_content = all(map(_is_part, given)) if isinstance(given, list) else False
        if not isinstance(given, str) and not is_content:
            given = json.dumps(given, ensure_ascii=False)
        content = read_content(given, f"{where}.output")
        self._put({"role": "tool", "tool_call_id": id, "content": content})

    def _call_elsewhere(self, item: Mapping[str, Any], where: str) -> None:
        """Add a call to an MCP server that another service made, with what it gave."""
        namespaced = {**item, "namespace": item.get("server_label")}
        self._call(namespaced, "function_call", where)
        given = item.get("output") or item.get("error") or ""
        self._give({"call_id": item.get("id"), "output": given}, "mcp_call_output", where)

    # -- steps -------------------------------------------------------------------------------------

    def _assistant(self) -> Message:
        """The assistant's message that is being made."""
        if self._open is None:
            message: Message = {"role": "assistant", "content": ""}
            self._put(message)
            self._open = message
        return self._open

    def _put(self, message: Message) -> None:
        self._messages.append(message)
        self._open = None


def read_content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """The content of a message in the form of chat completions; texts alone become one.

    Raises:
        ApiError: It is no text and no list of parts.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise invalid_field(where, "must be a string or a list of parts")
    parts = [_read_part(part, f"{where}[{index}]") for index, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join(part["text"] for part in parts if part["text"])
    return parts


def _read_part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise invalid_field(where, "must be an object with a type")
    if kind == "refusal" or kind in _TEXTS:
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise invalid_field(f"{where}.text", "must be a string")
        return {"type": "text", "text": text}
    if kind in ("input_image", "image_url", "computer_screenshot"):
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        if not isinstance(url, str):
            raise invalid_field(f"{where}.image_url", "must be a URL: this server keeps no files")
        detail = {"detail": part["detail"]} if isinstance(part.get("detail"), str) else {}
        return {"type": "image_url", "image_url": {"url": url, **detail}}
    if kind == "input_file":
        names = ("file_data", "filename", "file_url", "file_id")
        return {"type": "file", "file": {name: part[name] for name in names if name in part}}
    return dict(part)


def _is_part(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return value.get("type") in _OUTPUT_PARTS or "image_url" in value


def _text_of(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else ""


def _says_something(message: Message) -> bool:
    return bool(message["content"] or message.get("tool_calls"))
