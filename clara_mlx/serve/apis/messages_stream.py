"""An answer as one of Anthropic's messages: whole, or as the events of a stream."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

from clara_mlx.context import Estimate
from clara_mlx.context.commands import parse_arguments
from clara_mlx.serve import sse
from clara_mlx.serve.json_values import BadJson, read_answer
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.reply import Object, Reply, first_choice
from clara_mlx.serve.request import ChatRequest, readable_arguments
from clara_mlx.serve.runs import Run
from clara_mlx.serve.usage import cached_tokens, stated_tokens

# Stands under every thought: clients expect something, and send it back unread.
_SIGNATURE = "clara-mlx"

# Between the texts of two rounds: they are blocks of their own, which clients show as one text.
_APART = "\n\n"

# The edit that our compaction is an instance of, if a client asks for it.
_CLEAR_TOOL_USES = "clear_tool_uses_20250919"


class Writer:
    """Writes one answer, over all its rounds, as one message.

    Attributes:
        text: The text of all rounds that the client has, or will get.
        begun: Whether an event has been sent, so that no other model can continue the answer.
    """

    def __init__(self, request: ChatRequest, run: Run) -> None:
        self.text = ""
        self.begun = False
        self._request = request
        self._run = run
        self._id = f"msg_{uuid.uuid4().hex}"
        self._model = ""
        self._stopped_by: str | None = None
        self._prompt: Prompt | None = None
        self._compacted = 0
        self._blocks = Blocks(self._send)
        self._calls = Calls(self._blocks)

    def begin_round(self, prompt: Prompt) -> None:
        """End the block that is open: the next round has blocks of its own."""
        self._prompt = prompt
        self._compacted += len(prompt.compacted)
        self._end_round()
        self._blocks.gap = _APART if self.text else ""

    def write(self, model: str, piece: Object, delta: Object | None) -> None:
        """Write what the client may see of a chunk, or of a whole answer.

        Args:
            model: The name of the model that answers.
            piece: The chunk, or the answer, as it came from the endpoint.
            delta: What the client may see of it, if anything.
        """
        self._model = model
        # vLLM and SGLang say here which stop sequence it was; others don't say.
        said = (first_choice(piece) or {}).get("stop_reason")
        if isinstance(said, str) and said in self._request.echo["stop_sequences"]:
            self._stopped_by = said
        if delta is None:
            return
        self._begin()
        if self._request.echo["thinking"] and "reasoning_content" in delta:
            self._calls.think(delta["reasoning_content"])
        for name in ("content", "refusal"):
            if name in delta:
                self._calls.say(delta[name])
        for call in delta.get("tool_calls", []):
            self._calls.take(call)
        self.text = self._blocks.text

    def finish(self, reply: Reply) -> None:
        """Write the whole message, or the end of the stream."""
        self._begin()
        self._end_round()
        reason, sequence = self._stop_reason(reply)
        ending = {"stop_reason": reason, "stop_sequence": sequence}
        usage = self._final_usage(reply)
        more = self._context_management()
        if self._request.stream:
            self._send({"type": "message_delta", "delta": ending, "usage": usage, **more})
            self._send({"type": "message_stop"})
            return
        message = self._message(content=self._blocks.content, usage=usage, **ending, **more)
        self._run.send(json.dumps(message).encode())

    def _begin(self) -> None:
        if not self._request.stream or self.begun:
            return
        self.begun = True
        tokens = self._prompt.tokens if self._prompt else 0
        usage = {"input_tokens": tokens, "output_tokens": 0, **_cache(0)}
        self._send({"type": "message_start", "message": self._message(content=[], usage=usage)})
        self._send({"type": "ping"})

    def _end_round(self) -> None:
        self._calls.end_round()
        self.text = self._blocks.text

    def _send(self, event: Object) -> None:
        if self._request.stream:
            self._run.send(sse.encode_event(event, event["type"]))

    def _message(self, **more: Any) -> Object:
        own = {"id": self._id, "type": "message", "role": "assistant", "model": self._model}
        return {**own, "stop_reason": None, "stop_sequence": None, **more}

    def _stop_reason(self, reply: Reply) -> tuple[str, str | None]:
        """Why the answer ended, and the stop sequence if the server says that it was one."""
        if reply.finish == "length":
            return "max_tokens", None
        if reply.finish == "content_filter":
            return "refusal", None
        if reply.client_calls:
            return "tool_use", None
        if self._stopped_by is not None:
            return "stop_sequence", self._stopped_by
        return "end_turn", None

    def _final_usage(self, reply: Reply) -> Object:
        """The tokens of the last round: its prompt has all earlier rounds in it."""
        cached = cached_tokens(reply.usage)
        prompt = stated_tokens(reply.usage, "prompt_tokens")
        prompt = prompt or (self._prompt.tokens if self._prompt else 0)
        output = stated_tokens(reply.usage, "completion_tokens")
        output = output or Estimate().text(reply.content + reply.reasoning)
        fresh = max(0, prompt - cached)
        return {"input_tokens": fresh, "output_tokens": output, **_cache(cached)}

    def _context_management(self) -> Object:
        """What was done to the conversation, for clients that ask for such edits."""
        kinds = self._request.echo.get("edits")
        if kinds is None:
            return {}
        applied: list[Object] = []
        if self._compacted and _CLEAR_TOOL_USES in kinds and self._prompt:
            freed = max(0, self._prompt.tokens_in - self._prompt.tokens)
            edit = {"cleared_tool_uses": self._compacted, "cleared_input_tokens": freed}
            applied.append({"type": _CLEAR_TOOL_USES, **edit})
        return {"context_management": {"applied_edits": applied}}


def _cache(read: int) -> Object:
    return {"cache_creation_input_tokens": 0, "cache_read_input_tokens": read}


class Blocks:
    """The content of a message, block after block: one is open at a time.

    Args:
        send: Sends an event.

    Attributes:
        content: The blocks that are closed.
        text: The text of all blocks.
        gap: What comes before the next text.
    """

    def __init__(self, send: Callable[[Object], None]) -> None:
        self.content: list[Object] = []
        self.text = ""
        self.gap = ""
        self._send = send
        self._open: Object | None = None
        self._pieces: list[str] = []  # of the open block
        self._blank = ""  # white space that no text has followed yet

    @property
    def kind(self) -> str | None:
        """The type of the block that is open."""
        return None if self._open is None else str(self._open["type"])

    @property
    def so_far(self) -> str:
        """What the open block has."""
        return "".join(self._pieces)

    def think(self, thought: str) -> None:
        """Add to a thought."""
        if self.kind != "thinking":
            self.open({"type": "thinking", "thinking": "", "signature": ""})
        self._add(thought, {"type": "thinking_delta", "thinking": thought})

    def say(self, text: str) -> None:
        """Add to a text; a block of nothing but white space is none, clients don't send it back."""
        if self.kind != "text":
            if not text.strip():
                self._blank += text
                return
            text = self.gap + self._blank + text
            self.gap = self._blank = ""
            self.open({"type": "text", "text": ""})
        self.text += text
        self._add(text, {"type": "text_delta", "text": text})

    def add_arguments(self, piece: str) -> None:
        """Add to the arguments of the call that is open."""
        if piece:
            self._add(piece, {"type": "input_json_delta", "partial_json": piece})

    def open(self, block: Object) -> None:
        """Close the block that is open, and open another."""
        self.close()
        self._open = block
        index = len(self.content)
        self._send({"type": "content_block_start", "index": index, "content_block": {**block}})

    def close(self) -> None:
        """Close the block that is open, if one is."""
        block, self._open = self._open, None
        if block is None:
            return
        index = len(self.content)
        whole = "".join(self._pieces)
        self._pieces = []
        match block["type"]:
            case "thinking":
                block |= {"thinking": whole, "signature": _SIGNATURE}
                delta = {"type": "signature_delta", "signature": _SIGNATURE}
                self._send({"type": "content_block_delta", "index": index, "delta": delta})
            case "text":
                block["text"] = whole
            case "tool_use":
                block["input"] = _read_input(whole)
        self.content.append(block)
        self._send({"type": "content_block_stop", "index": index})

    def end_text(self) -> None:
        """Forget white space at the end, and close the open block."""
        self._blank = ""
        self.close()

    def _add(self, piece: str, delta: Object) -> None:
        self._pieces.append(piece)
        self._send({"type": "content_block_delta", "index": len(self.content), "delta": delta})


def _read_input(arguments: str) -> Any:
    """The arguments of a call as an object; what can't be read is in it as it came."""
    readable = readable_arguments(arguments).encode("utf-8", "replace")
    try:
        return read_answer(readable)
    except BadJson:  # too deep, or too many values
        return {"_raw": arguments}


class Calls:
    """Brings what a server may send in any order into an order of blocks.

    A call goes on in pieces, and servers may send those of several calls by turns, or a text in
    between. What comes while a call is not complete waits until the round ends.

    Args:
        blocks: Where the blocks are written.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._current: int | None = None  # the place of the call whose block is open
        self._waiting: dict[int, tuple[Object, list[str]]] = {}  # by place: its block, its pieces
        self._late: list[tuple[Callable[[str], None], str]] = []  # texts that came after calls

    def think(self, thought: str) -> None:
        """Write a piece of a thought, at once if no call is open."""
        self._write(self._blocks.think, thought)

    def say(self, text: str) -> None:
        """Write a piece of a text, at once if no call is open."""
        self._write(self._blocks.say, text)

    def take(self, call: Object) -> None:
        """Write a piece of a call; the first one has its id and its name."""
        place, function = call["index"], call["function"]
        if "id" in call:
            block = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": {}}
            if self._waiting or not self._is_complete():
                self._waiting[place] = block, [function["arguments"]]
                return
            self._current = place
            self._blocks.open(block)
        elif place in self._waiting:
            self._waiting[place][1].append(function["arguments"])
            return
        if place == self._current:
            self._blocks.add_arguments(function["arguments"])

    def end_round(self) -> None:
        """Write what waits, and close the last block."""
        for block, pieces in self._waiting.values():
            self._blocks.open(block)
            self._blocks.add_arguments("".join(pieces))
        self._current = None
        self._waiting = {}
        late, self._late = self._late, []
        for write, text in late:
            write(text)
        self._blocks.end_text()

    def _write(self, write: Callable[[str], None], text: str) -> None:
        if self._current is None:
            write(text)
        else:
            self._late.append((write, text))

    def _is_complete(self) -> bool:
        """Whether there is no open call that may go on."""
        if self._current is None:
            return True
        return parse_arguments(self._blocks.so_far) is not None
