"""The answers of Responses: one object, or the events of a stream that build it up."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from clara_mlx.serve import sse
from clara_mlx.serve.apis.responses_output import Call, FreeCall, Item, Send, Text, Thought
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.reply import Object, Reply
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.runs import Run
from clara_mlx.serve.usage import cached_tokens, stated_tokens

# Why an answer is incomplete, by its finish reason.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

# What the error of a failed response is called, by its status; all others are the server's. Codex
# does not try again what an invalid prompt had, and looks for the code of an overflow, which
# OpenAI's types lack.
_CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
_OVERFLOW = "context_length_exceeded"


class Events:
    """The events of one response, numbered, and the fields that it has from beginning to end.

    Args:
        request: The client's request.
        run: Where events go.

    Attributes:
        id: Names the response.
        model: The name of the model that answers.
        begun: Whether the beginning was sent.
    """

    def __init__(self, request: ChatRequest, run: Run) -> None:
        self.id = f"resp_{uuid.uuid4().hex}"
        self.model = ""
        self.begun = False
        self._echo: Object = request.echo.get("fields", {})
        self._run = run
        self._number = 0
        self._created = int(time.time())

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        self._run.send(self._encode(kind, **fields))

    def begin(self) -> None:
        """Send what every stream begins with, unless that was done."""
        if not self.begun:
            self._run.send(self._beginning())

    def failed(self, error: ApiError, output: list[Object]) -> bytes:
        """What ends a stream with an error."""
        before = b"" if self.begun else self._beginning()
        is_overflow = error.code == _OVERFLOW
        code = _OVERFLOW if is_overflow else _CODES.get(error.status, "server_error")
        kind = error.code or error.type
        fields = {"code": code, "message": str(error), "param": error.param, "type": kind}
        response = self.response("failed", output, error=fields)
        return before + self._encode("response.failed", response=response)

    def response(self, status: str, output: list[Object], **fields: Any) -> Object:
        """The response as an object."""
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
        return own | self._echo | fields

    def _beginning(self) -> bytes:
        self.begun = True
        kinds = ("response.created", "response.in_progress")
        response = self.response("in_progress", [])
        return b"".join(self._encode(kind, response=response) for kind in kinds)

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
        self._items: list[Item] = []
        self._calls: dict[int, Call] = {}
        self._gap = ""
        self._prompt_tokens = 0
        self._failure = b""
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
        self._begin()
        if thought := delta.get("reasoning_content"):
            self._open(Thought).add(thought)
        for name in ("content", "refusal"):
            if name in delta:
                self._take_text(delta[name])
        for part in delta.get("tool_calls", ()):
            self._take_call(part)

    def finish(self, reply: Reply) -> None:
        """Write the whole answer, or the end of the stream."""
        self._begin()
        why = _INCOMPLETE.get(reply.finish or "")
        for item in self._items:
            item.close("incomplete" if why and item is self._items[-1] else "completed")
        status = "incomplete" if why else "completed"
        output = [item.value for item in self._items]
        # Clients tell from it how full the window is, so an estimate is better than nothing.
        usage = reply.usage or {"prompt_tokens": self._prompt_tokens}
        more: Object = {"usage": read_usage(usage)}
        if why:
            more["incomplete_details"] = {"reason": why}
        else:
            more["completed_at"] = int(time.time())
        response = self._events.response(status, output, **more)
        if self._request.stream:
            self._events.send(f"response.{status}", response=response)
        else:
            self._run.send(json.dumps(response).encode())

    def _begin(self) -> None:
        if self._request.stream:
            self._events.begin()
            self.begun = True

    def _fail(self, error: ApiError) -> bytes:
        """What ends the stream with an error: the same for all who follow it."""
        if not self._failure:
            self._failure = self._events.failed(error, [item.value for item in self._items])
        return self._failure

    def _take_text(self, text: str) -> None:
        """Add to the text, in an item of its own if something else has come in between.

        ``self.text`` is what the next request's items are joined to, see `responses_items`.
        """
        if self._items and isinstance(self._items[-1], Text):
            text = self._gap + text
            self.text += text
        else:
            self.text += ("\n\n" if self.text and not self._calls else "") + text
        self._gap = ""
        self._open(Text).add(text)

    def _open(self, kind: type[Thought] | type[Text]) -> Thought | Text:
        """The item that takes the next text; a new one if the last is another kind of item."""
        last = self._items[-1] if self._items else None
        if isinstance(last, kind):
            return last
        if isinstance(last, Thought | Text):
            last.close("completed")
        item = kind(self._send(len(self._items)))
        self._items.append(item)
        return item

    def _take_call(self, part: Object) -> None:
        """Begin a call, or add to its arguments."""
        function = part["function"]
        if part["index"] not in self._calls:
            if self._items and isinstance(self._items[-1], Thought | Text):
                self._items[-1].close("completed")
            name = function["name"]
            namespace = self._request.echo["namespaced"].get(name)
            make = FreeCall if name in self._request.echo["custom"] else Call
            call = make(self._send(len(self._items)), part["id"], namespace or [None, name])
            self._calls[part["index"]] = call
            self._items.append(call)
        self._calls[part["index"]].add(function["arguments"])

    def _send(self, index: int) -> Send:
        """What sends the events of the item with this index; nothing does without a stream."""

        def send(kind: str, **fields: Any) -> None:
            if self._request.stream:
                self._events.send(f"response.{kind}", output_index=index, **fields)

        return send


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
