"""The items of a response in the making: each sends the events that build it up."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from clara_mlx.context.commands import parse_arguments
from clara_mlx.serve.apis.responses_tools import INPUT
from clara_mlx.serve.reply import Object

#: Sends an event, given its type and its fields.
Send = Callable[..., None]


class Item:
    """An item of the output in the making; its ``value`` is what the client has of it so far."""

    prefix = ""

    def __init__(self, send: Send, value: Object) -> None:
        self.value = {"id": f"{self.prefix}_{uuid.uuid4().hex}", **value}
        self._send = send
        self._is_closed = False
        send("output_item.added", item=self.value)

    def close(self, status: str) -> None:
        """Send the end of the item, once."""
        if self._is_closed:
            return
        self._is_closed = True
        self._end()
        if "status" in self.value:
            self.value["status"] = status
        self._send("output_item.done", item=self.value)

    def _send_own(self, kind: str, **fields: Any) -> None:
        self._send(kind, item_id=self.value["id"], **fields)

    def _end(self) -> None:
        """Send the end of what the item has."""


class Thought(Item):
    """Reasoning, as one part of a summary."""

    prefix = "rs"

    def __init__(self, send: Send) -> None:
        super().__init__(send, {"type": "reasoning", "summary": [], "status": "in_progress"})
        self._part = {"type": "summary_text", "text": ""}
        self._send_own("reasoning_summary_part.added", summary_index=0, part=self._part)
        self.value["summary"] = [self._part]

    def add(self, text: str) -> None:
        """Add to the text."""
        self._part["text"] += text
        self._send_own("reasoning_summary_text.delta", summary_index=0, delta=text)

    def _end(self) -> None:
        self._send_own("reasoning_summary_text.done", summary_index=0, text=self._part["text"])
        self._send_own("reasoning_summary_part.done", summary_index=0, part=self._part)


class Text(Item):
    """A message, with one part."""

    prefix = "msg"

    def __init__(self, send: Send) -> None:
        message = {"type": "message", "role": "assistant", "content": [], "status": "in_progress"}
        super().__init__(send, message)
        self._part: Object = {"type": "output_text", "text": "", "annotations": []}
        self._send_own("content_part.added", content_index=0, part=self._part)
        self.value["content"] = [self._part]

    def add(self, text: str) -> None:
        """Add to the text."""
        self._part["text"] += text
        self._send_own("output_text.delta", content_index=0, delta=text, logprobs=[])

    def _end(self) -> None:
        text = self._part["text"]
        self._send_own("output_text.done", content_index=0, text=text, logprobs=[])
        self._send_own("content_part.done", content_index=0, part=self._part)


class Call(Item):
    """A call to a function."""

    prefix = "fc"

    def __init__(self, send: Send, id: str, name: list[str | None]) -> None:
        super().__init__(send, self._begin(id, name))

    def _begin(self, id: str, name: list[str | None]) -> Object:
        value = {"type": "function_call", "call_id": id, "name": name[1], "arguments": ""}
        if name[0] is not None:
            value["namespace"] = name[0]
        return {**value, "status": "in_progress"}

    def add(self, arguments: str) -> None:
        """Add to the arguments."""
        if arguments:
            self.value["arguments"] += arguments
            self._send_own("function_call_arguments.delta", delta=arguments)

    def _end(self) -> None:
        arguments = self.value["arguments"]
        self._send_own("function_call_arguments.done", arguments=arguments, name=self.value["name"])


class FreeCall(Call):
    """A call to a free-form tool, whose input is known when all arguments have come."""

    prefix = "ctc"

    def __init__(self, send: Send, id: str, name: list[str | None]) -> None:
        self._arguments = ""
        super().__init__(send, id, name)

    def _begin(self, id: str, name: list[str | None]) -> Object:
        value: Object = {"type": "custom_tool_call", "call_id": id, "name": name[1], "input": ""}
        return value if name[0] is None else {**value, "namespace": name[0]}

    def add(self, arguments: str) -> None:
        """Add to the arguments."""
        self._arguments += arguments

    def _end(self) -> None:
        given = parse_arguments(self._arguments)
        text = given.get(INPUT) if given else None
        # A model that calls the argument something else, or writes no JSON, means the same.
        if not isinstance(text, str) and given and len(given) == 1:
            (text,) = given.values()
        self.value["input"] = text if isinstance(text, str) else self._arguments
        self._send_own("custom_tool_call_input.delta", delta=self.value["input"])
        self._send_own("custom_tool_call_input.done", input=self.value["input"])
