"""The answers to requests for a compaction: one item that stands for the conversation so far.

OpenAI encrypts what such an item has. Here it can be read: it is a fold's text.
"""

from __future__ import annotations

import json
import time
import uuid

from clara_mlx.serve.apis.responses_stream import Events, read_usage
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.reply import Object, Reply
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.runs import Run


class CompactionWriter:
    """Writes the answer to a request that ends in a ``compaction_trigger``; see `apis.Writer`."""

    def __init__(self, request: ChatRequest, run: Run) -> None:
        self.text = ""
        self.begun = False
        self._request = request
        self._run = run
        self._events = Events(request, run)
        run.error_event = lambda error: self._events.failed(error, [])

    def begin_round(self, prompt: Prompt) -> None:
        """There is one round."""

    def write(self, model: str, piece: Object, delta: Object | None) -> None:
        """Note the name of the model."""
        self._events.model = model

    def finish(self, reply: Reply) -> None:
        """Write a response with one item, whose text is that of the reply."""
        item = _compaction(reply.content)
        fields = {"usage": read_usage(reply.usage), "completed_at": int(time.time())}
        response = self._events.response("completed", [item], **fields)
        if not self._request.stream:
            self._run.send(json.dumps(response).encode())
            return
        self._events.begin()
        for kind in ("added", "done"):
            self._events.send(f"response.output_item.{kind}", output_index=0, item=item)
        self._events.send("response.completed", response=response)


class CompactedWriter(CompactionWriter):
    """Writes the answer of ``/v1/responses/compact``: what users said, then the compaction."""

    def finish(self, reply: Reply) -> None:
        """Write the items that take the conversation's place."""
        users = [_message(item) for item in self._request.echo["users"]]
        answer = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [*users, _compaction(reply.content)],
            "usage": read_usage(reply.usage),
        }
        self._run.send(json.dumps(answer).encode())


def _compaction(text: str) -> Object:
    return {"id": f"cmp_{uuid.uuid4().hex}", "type": "compaction", "encrypted_content": text}


def _message(item: Object) -> Object:
    """A user's message with all fields that items of an output have."""
    content = item["content"]
    if isinstance(content, str):
        content = [{"type": "input_text", "text": content}]
    own = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "status": "completed"}
    return own | item | {"content": content}
