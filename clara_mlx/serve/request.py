"""The inner form of a chat request: what every caller's form is read into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.context.commands import parse_arguments
from clara_mlx.context.messages import Message, is_instruction

# Placeholder for the result of a call that the client has lost.
_LOST_RESULT = "(the result of this call is not in the conversation any more)"

# The tool of a call that the client has lost, if its result does not name it.
_LOST_CALL = "earlier_call"

# The name of the argument that has what a model wrote in place of arguments.
_RAW = "_raw"


@dataclass(frozen=True)
class ChatRequest:
    """A chat request without what clients do differently."""

    messages: list[Message]  # see `repair`; optional fields that were null are absent
    tools: list[dict[str, Any]]  # the client's, by name, whatever order they came in
    options: dict[str, Any]  # every other field that was given and is not null
    stream: bool  # whether the answer is wanted piece by piece
    usage: bool  # whether a stream is to end with the usage
    key: bytes  # names this request; an identical one has the same key
    api: str = "chat"  # the name of the API that it came by, see `apis.APIS`
    echo: dict[str, Any] = field(default_factory=dict)  # what that API's answers repeat of it
    has_images: bool = False  # whether a message has a part that is not text
    compaction_only: bool = False  # whether the answer is to be a compaction, see `compacting`
    compact_above: int | None = None  # tokens above which its client wants it compacted, if any

    @property
    def is_deterministic(self) -> bool:
        """Whether the same request has the same answer, as far as its options say."""
        return not self.options.get("temperature") or "seed" in self.options


def has_images(messages: Sequence[Message]) -> bool:
    """Whether a message has a part that is not text."""
    contents = [m["content"] for m in messages if isinstance(m["content"], list)]
    return any(part.get("type") != "text" for content in contents for part in content)


def repair(messages: Sequence[Message]) -> list[Message]:
    """A conversation that every server takes.

    It has one leading instruction, calls with their results, and arguments that can be read.
    """
    readable = [_with_readable_arguments(message) for message in messages]
    return _merge_instructions(_pair_calls_with_results(readable))


def readable_arguments(arguments: Any) -> Any:
    """The arguments of a call in a form that every server reads: an object, as JSON or parsed.

    A model that was cut off leaves half of one. Servers refuse the whole conversation then, in
    every later request. What it wrote stays to be seen, as the value of one argument.
    """
    if isinstance(arguments, dict):
        return arguments
    if not arguments or arguments.strip() in ("", "null"):
        return "{}"
    if parse_arguments(arguments) is not None:
        return arguments
    return json.dumps({_RAW: arguments}, ensure_ascii=False)


def _with_readable_arguments(message: Message) -> Message:
    calls = message.get("tool_calls", [])
    given = [call["function"].get("arguments") for call in calls]
    readable = [readable_arguments(one) for one in given]
    if readable == given:
        return message
    mended = [
        {**call, "function": {**call["function"], "arguments": one}}
        for call, one in zip(calls, readable, strict=True)
    ]
    return {**message, "tool_calls": mended}


def _pair_calls_with_results(messages: Sequence[Message]) -> list[Message]:
    """Put a placeholder where a client that shortened its history left a call or result alone."""
    paired: list[Message] = []
    waiting: dict[str, None] = {}  # ids of the newest calls that have no result yet
    for message in messages:
        if message["role"] == "tool":
            id = message["tool_call_id"]
            if id in waiting:
                del waiting[id]
                paired.append(message)
                continue
            # It gets a call of its own: what a tool said must stay under the tool's role.
            paired += [*_placeholders(waiting), _call_for(message), message]
            waiting = {}
            continue
        paired += _placeholders(waiting)
        waiting = {call["id"]: None for call in message.get("tool_calls", [])}
        paired.append(message)
    return paired + _placeholders(waiting)


def _placeholders(ids: Iterable[str]) -> list[Message]:
    return [{"role": "tool", "tool_call_id": id, "content": _LOST_RESULT} for id in ids]


def _call_for(result: Message) -> Message:
    """A call that a result without one can follow."""
    function = {"name": str(result.get("name") or _LOST_CALL), "arguments": "{}"}
    call = {"id": result["tool_call_id"], "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _merge_instructions(messages: list[Message]) -> list[Message]:
    """Join the instructions at the beginning: some templates refuse a second one."""
    count = next((i for i, m in enumerate(messages) if not is_instruction(m)), len(messages))
    texts = [m["content"] for m in messages[:count]]
    if count < 2 or not all(isinstance(text, str) for text in texts):
        return messages
    return [{"role": "system", "content": "\n\n".join(texts)}, *messages[count:]]
