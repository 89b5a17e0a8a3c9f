"""The inner form of a chat request: what every caller's form is read into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from clara_mlx.context.messages import Message, content_text, has_only_text, is_instruction
from clara_mlx.serve.pairing import pair_calls_with_results

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
        """Whether the same request has the same answer, as far as its options say.

        Without a temperature servers sample, each at one of its own.
        """
        return self.options.get("temperature") == 0 or "seed" in self.options


def has_images(messages: Sequence[Message]) -> bool:
    """Whether a message has a part that is not text."""
    contents = [m["content"] for m in messages if isinstance(m["content"], list)]
    return any(part.get("type") != "text" for content in contents for part in content)


def call_ids(messages: Iterable[Message]) -> frozenset[str]:
    """The ids of all calls in messages."""
    return frozenset(call["id"] for m in messages for call in m.get("tool_calls") or ())


def repair(messages: Sequence[Message]) -> list[Message]:
    """A conversation that every server takes.

    It has one leading instruction, calls with their results, and arguments that can be read.
    """
    readable = [_with_readable_arguments(message) for message in messages]
    return _merge_instructions(pair_calls_with_results(readable))


def readable_arguments(arguments: Any) -> str:
    """The arguments of a call in the form that every server reads: an object, as JSON.

    A model that was cut off leaves half of one. Servers refuse the whole conversation then, in
    every later request. What it wrote stays to be seen, as the value of one argument.
    """
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if arguments.strip() in ("", "null"):
        return "{}"
    if _is_object(arguments):
        return arguments
    return json.dumps({_RAW: arguments}, ensure_ascii=False)


def _is_object(text: str) -> bool:
    """Whether a text is a JSON object, also for servers that are stricter than Python."""
    try:
        return isinstance(_STRICT.decode(text), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


# Refuses NaN and Infinity, which Python would read.
_STRICT = json.JSONDecoder(parse_constant=_refuse)


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


def _merge_instructions(messages: list[Message]) -> list[Message]:
    """Join the instructions at the beginning: some templates refuse a second one."""
    count = next((i for i, m in enumerate(messages) if not is_instruction(m)), len(messages))
    contents = [m["content"] for m in messages[:count]]
    if count < 2 or not all(isinstance(c, str) or has_only_text(c) for c in contents):
        return messages
    texts = map(content_text, messages[:count])
    return [{"role": "system", "content": "\n\n".join(texts)}, *messages[count:]]
