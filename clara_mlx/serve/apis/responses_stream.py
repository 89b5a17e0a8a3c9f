"""The answers of Responses: one object, or the events of a stream that build it up."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from clara_mlx.context.commands import parse_arguments
from clara_mlx.serve import sse
from clara_mlx.serve.apis.responses_tools import INPUT
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.reply import Object, Reply
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.runs import Run
from clara_mlx.serve.usage import cached_tokens, stated_tokens

# Why an answer is incomplete, by its finish reason.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

# What a failed response's error may be called; anything else is the server's.
_CODES = {
    429: "rate_limit_exceeded",
    400: "invalid_prompt",
}

# Sends an event, given its type and its fields.
_Send = Callable[..., None]


class Events:
    """The events of one response, numbered, and the fields that it has from beginning to end.

    Args:
        request: The client's request.
        run: Where events go.
    """

    def __init__(self, request: ChatRequest, run: Run) -> None:
        self.id = f"resp_{uuid.uuid4().hex}"
        self.model = ""
        self._echo: Object = request.echo.get("fields", {})
        self._run = run
        self._number = 0
        self._created = int(time.time())

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        self._run.send(self._encode(kind, **fields))

    def begin(self) -> None:
        """Send what every stream begins with."""
        for kind in ("created", "in_progress"):
            self.send(f"response.{kind}", response=self.response("in_progress", []))

    def failed(self, error: ApiError, output: list[Object]) -> bytes:
        """The event that ends a stream with an error."""
        code = error.code or _CODES.get(error.status, "server_error")
        fields = {"code": code, "message": str(error), "param": error.param, "type": error.type}
        response = self.response("failed", output, error=fields)
        return self._encode("response.failed", response=response)

    def response(self, status: str, output: list[Object], **fields: Any) -> Object:
        """The response as an object."""
        echo = self._echo
        own = {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": None,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "truncation": "disabled",
            "usage": None,
            "metadata": {},
        }
        return own | echo | fields

    def _encode(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return sse.encode_event(event, kind)


class ResponsesWriter:
    """Writes one answer, over all its rounds, as one response; see `apis.Writer`.

    Reasoning is sent as a summary, which every client shows and sends back.
    """

    def __init__(self, request: ChatRequest, run: Run) -> None:
        self.text = ""
        self.begun = False
        self._request = request
        self._run = run
        self._events = Events(request, run)
        self._items: list[_Item] = []
        self._calls: dict[int, _Call] = {}
        self._gap = ""
        self._prompt_tokens = 0
        run.error_event = self._fail

    def begin_round(self, prompt: Prompt) -> None:
        """Separate the text of the next round from what there is."""
        self._gap = "\n\n" if self.text else ""
        self._prompt_tokens = prompt.tokens

    def write(self, model: str, piece: Object, delta: Object | None) -> None:
        """Write a piece of a stream, or note a whole answer; see `apis.Writer.write`."""
        self._events.model = model
        if delta is None:
            return
        if self._request.stream and not self.begun:
            self._events.begin()
            self.begun = True
        if thought := delta.get("reasoning_content"):
            self._open(_Thought).add(thought)
        for name in ("content", "refusal"):
            if name in delta:
                self._take_text(delta[name])
        for part in delta.get("tool_calls", ()):
            self._take_call(part)

    def finish(self, reply: Reply) -> None:
        """Write the whole answer, or the end of the stream."""
        if self._request.stream and not self.begun:
            self._events.begin()
            self.begun = True
        why = _INCOMPLETE.get(reply.finish or "")
        for item in self._items:
            item.close("incomplete" if why and item is self._items[-1] else "completed")
        status = "incomplete" if why else "completed"
        output = [item.value for item in self._items]
        more: Object = {"usage": read_usage(reply.usage)}
        if why:
            more["incomplete_details"] = {"reason": why}
        else:
            more["completed_at"] = int(time.time())
        response = self._events.response(status, output, **more)
        if self._request.stream:
            self._events.send(f"response.{status}", response=response)
        else:
            self._run.send(json.dumps(response).encode())

    def _fail(self, error: ApiError) -> bytes:
        """The events that end a stream with an error."""
        if not self.begun:
            self._events.begin()
            self.begun = True
        return self._events.failed(error, [item.value for item in self._items])

    def _take_text(self, text: str) -> None:
        """Add to the text, in an item of its own if something else has come in between.

        ``self.text`` is what the next request's items are joined to, see `responses_items`.
        """
        if self._items and isinstance(self._items[-1], _Text):
            text = self._gap + text
            self.text += text
        else:
            self.text += ("\n\n" if self.text and not self._calls else "") + text
        self._gap = ""
        self._open(_Text).add(text)

    def _open(self, kind: type[_Thought] | type[_Text]) -> _Thought | _Text:
        """The item that takes the next text; a new one if the last is another kind of item."""
        last = self._items[-1] if self._items else None
        if isinstance(last, kind):
            return last
        if isinstance(last, _Thought | _Text):
            last.close("completed")
        item = kind(self._send(len(self._items)))
        self._items.append(item)
        return item

    def _take_call(self, part: Object) -> None:
        """Begin a call, or add to its arguments."""
        function = part["function"]
        if part["index"] not in self._calls:
            if self._items and isinstance(self._items[-1], _Thought | _Text):
                self._items[-1].close("completed")
            name = function["name"]
            namespace = self._request.echo["namespaced"].get(name)
            make = _FreeCall if name in self._request.echo["custom"] else _Call
            call = make(self._send(len(self._items)), part["id"], namespace or [None, name])
            self._calls[part["index"]] = call
            self._items.append(call)
        self._calls[part["index"]].add(function["arguments"])

    def _send(self, index: int) -> _Send:
        """What sends the events of the item with this index; nothing does without a stream."""

        def send(kind: str, **fields: Any) -> None:
            if self._request.stream:
                self._events.send(f"response.{kind}", output_index=index, **fields)

        return send


class _Item:
    """An item of the output in the making; its ``value`` is what the client has of it so far."""

    prefix = ""

    def __init__(self, send: _Send, value: Object) -> None:
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


class _Thought(_Item):
    """Reasoning, as one part of a summary."""

    prefix = "rs"

    def __init__(self, send: _Send) -> None:
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


class _Text(_Item):
    """A message, with one part."""

    prefix = "msg"

    def __init__(self, send: _Send) -> None:
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


class _Call(_Item):
    """A call to a function."""

    prefix = "fc"

    def __init__(self, send: _Send, id: str, name: list[str | None]) -> None:
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


class _FreeCall(_Call):
    """A call to a free-form tool, whose input is known when all arguments have come."""

    prefix = "ctc"

    def __init__(self, send: _Send, id: str, name: list[str | None]) -> None:
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


def read_usage(usage: Object | None) -> Object | None:
    """A server's usage under the names of Responses; None if it does not state any."""
    if not usage:
        return None
    prompt = stated_tokens(usage, "prompt_tokens")
    completion = stated_tokens(usage, "completion_tokens")
    details = usage.get("completion_tokens_details")
    thought = stated_tokens(details if isinstance(details, dict) else None, "reasoning_tokens")
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached_tokens(usage), "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + completion,
    }
