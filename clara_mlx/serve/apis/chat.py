"""OpenAI's chat completions: a body read into the inner form, an answer written back."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from clara_mlx.context.messages import Message
from clara_mlx.serve import sse
from clara_mlx.serve.apis.checks import (
    MOST_MESSAGES,
    MOST_PARTS,
    MOST_TOOLS,
    check_number,
    check_whole_number,
)
from clara_mlx.serve.errors import ApiError, invalid_field
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.reply import Object, Reply, first_choice, under_both_names
from clara_mlx.serve.request import ChatRequest, has_images, repair
from clara_mlx.serve.runs import Run

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))

# Fields that limit an answer; LM Studio's clients send -1 for none.
_LIMITS = ("max_tokens", "max_completion_tokens")
_NO_LIMIT = -1

# Parts that are text under another name, and the name of the text in them.
_TEXT_PARTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}

# Fields that the gateway sets itself, or that `ChatRequest` has fields for.
_NOT_OPTIONS = frozenset(("messages", "tools", "model", "stream", "stream_options"))


class ChatApi:
    """OpenAI's chat completions; see `apis.Api`."""

    name = "chat"
    path = "/v1/chat/completions"

    def read(self, body: Mapping[str, Any], caller: str | None) -> ChatRequest:
        """See `read_request`."""
        return read_request(body, caller)

    def writer(self, request: ChatRequest, run: Run) -> Writer:
        """See `Writer`."""
        return Writer(request, run)

    def error_body(self, error: ApiError) -> Object:
        """OpenAI's shape."""
        return error.body()

    def error_event(self, error: ApiError) -> bytes:
        """The same, as openai-python looks for it in a stream."""
        return sse.encode_event(error.body())

    def keepalive(self, text: str) -> bytes:
        """A comment, which clients skip."""
        return sse.encode_comment(text)


# -- reading ---------------------------------------------------------------------------------------


def read_request(body: Mapping[str, Any], caller: str | None) -> ChatRequest:
    """Check the body of a request and bring it into the inner form.

    Args:
        body: The body.
        caller: What else tells the request from others with the same body.

    Raises:
        ApiError: A field is not what OpenAI's API takes, or ``n`` is more than 1.
    """
    given = {key: value for key, value in body.items() if value is not None}
    for name in _LIMITS:
        if given.get(name) == _NO_LIMIT:
            del given[name]
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_field("messages", "must be a list with at least one message")
    if len(messages) > MOST_MESSAGES:
        raise invalid_field("messages", f"must be a list of at most {MOST_MESSAGES:,} messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    if sum(map(_count_parts, messages)) > MOST_PARTS:
        raise invalid_field("messages", f"must have at most {MOST_PARTS:,} parts and calls in all")
    stream = given.get("stream", False)
    stream_options = given.get("stream_options", {})
    if not isinstance(stream, bool) or not isinstance(stream_options, dict):
        raise invalid_field("stream", "must be true or false, and stream_options an object")
    if given.get("n", 1) != 1:
        raise invalid_field("n", "must be 1: this server gives one choice")
    _check_options(given)
    canonical = json.dumps([body, caller], sort_keys=True).encode()
    repaired = repair([_clean(message) for message in messages])
    return ChatRequest(
        messages=repaired,
        tools=_read_tools(given.get("tools", [])),
        options={key: value for key, value in given.items() if key not in _NOT_OPTIONS},
        stream=stream,
        usage=stream and stream_options.get("include_usage") is True,
        key=hashlib.sha256(canonical).digest(),
        api=ChatApi.name,
        has_images=has_images(repaired),
    )


def _check_message(message: Any, where: str) -> None:
    """Raise an `ApiError` that names the first field of a message that is wrong."""
    if not isinstance(message, dict):
        raise invalid_field(where, "must be an object")
    role = message.get("role")
    content = message.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise invalid_field(f"{where}.role", f"must be one of {', '.join(sorted(_ROLES))}")
    if isinstance(content, list):
        for index, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if not isinstance(kind, str) or (
                kind == "text" and not isinstance(part.get("text"), str)
            ):
                raise invalid_field(f"{where}.content[{index}]", "must be an object with a type")
    elif not (content is None or isinstance(content, str)):
        raise invalid_field(f"{where}.content", "must be a string or a list of parts")
    calls = message.get("tool_calls")
    if calls is not None:
        if role != "assistant" or not isinstance(calls, list):
            raise invalid_field(f"{where}.tool_calls", "must be a list in an assistant's message")
        for index, call in enumerate(calls):
            _check_call(call, f"{where}.tool_calls[{index}]")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise invalid_field(f"{where}.tool_call_id", "must be a string")


def _count_parts(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    parts = len(content) if isinstance(content, list) else 0
    return parts + len(message.get("tool_calls") or ())


def _check_call(call: Any, where: str) -> None:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid_field(where, "must have a function with a name")
    if not isinstance(call.get("id"), str):
        raise invalid_field(f"{where}.id", "must be a string")


def _check_options(given: Mapping[str, Any]) -> None:
    for name in _LIMITS:
        check_whole_number(given, name)
    for name, most in (("temperature", 2), ("top_p", 1)):
        check_number(given, name, most)
    stop = given.get("stop", [])
    if not isinstance(stop, str) and not (
        isinstance(stop, list) and all(isinstance(word, str) for word in stop)
    ):
        raise invalid_field("stop", "must be a string or a list of strings")


def _read_tools(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list):
        raise invalid_field("tools", "must be a list")
    if len(given) > MOST_TOOLS:
        raise invalid_field("tools", f"must be a list of at most {MOST_TOOLS:,} tools")
    for index, tool in enumerate(given):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid_field(f"tools[{index}]", "must be a function with a name")
    return sorted(given, key=lambda tool: str(tool["function"]["name"]))


def _clean(message: Mapping[str, Any]) -> Message:
    """A message without nulls, under the role and the names that every server knows."""
    copy = {key: value for key, value in message.items() if value is not None}
    if copy["role"] == "developer":
        copy["role"] = "system"
    copy.setdefault("content", "")
    thoughts: list[str] = []
    if isinstance(copy["content"], list):
        parts = copy["content"]
        thoughts = [str(part.get("thinking") or "") for part in parts if _is_thought(part)]
        copy["content"] = [_clean_part(part) for part in parts if not _is_thought(part)] or ""
    # A refusal is what was said; servers don't know the field.
    refusal = copy.pop("refusal", None)
    if isinstance(refusal, str) and not copy["content"]:
        copy["content"] = refusal
    if not copy.get("tool_calls"):
        copy.pop("tool_calls", None)
    # Servers read one or the other.
    thought = copy.pop("reasoning", None) or copy.get("reasoning_content") or "".join(thoughts)
    if isinstance(thought, str) and thought and copy["role"] == "assistant":
        copy["reasoning_content"] = thought
    else:
        copy.pop("reasoning_content", None)
    return copy


def _clean_part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a message under the name that every server knows."""
    name = _TEXT_PARTS.get(part["type"])
    if name and isinstance(part.get(name), str):
        return {"type": "text", "text": part[name]}
    if part["type"] == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    return part


def _is_thought(part: Mapping[str, Any]) -> bool:
    """Whether a part is a thought, as a client has it from another API."""
    return part["type"] in ("thinking", "redacted_thinking")


# -- writing ---------------------------------------------------------------------------------------


class Writer:
    """Writes one answer, over all its rounds, as one chat completion: whole or in chunks.

    Fields of the server that the gateway has no need to change are passed on.

    Attributes:
        text: The text of all rounds that the client has, or will get.
        begun: Whether a chunk has been sent, so that no other model can continue the answer.
    """

    def __init__(self, request: ChatRequest, run: Run) -> None:
        self.text = ""
        self.begun = False
        self._request = request
        self._run = run
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._gap = ""
        # From whom the newest piece came, and what it was.
        self._model = ""
        self._piece: Object = {}

    def begin_round(self, prompt: Prompt) -> None:
        """Separate the text of the next round from what there is."""
        self._gap = "\n\n" if self.text else ""

    def write(self, model: str, piece: Object, delta: Object | None) -> None:
        """Write a chunk, or note a whole answer.

        Args:
            model: The name of the model that answers.
            piece: The chunk, or the answer, as it came from the endpoint.
            delta: What the client may see of it, if anything.
        """
        self._model = model
        self._piece = piece
        if delta is None:
            return
        if "content" in delta:
            delta["content"] = self._gap + delta["content"]
            self._gap = ""
            self.text += delta["content"]
        if self._request.stream:
            if not self.begun:
                delta = {"role": "assistant", **delta}
            self.begun = True
            logprobs = _complete_logprobs(first_choice(piece) or {})
            self._send_chunk([_choice(delta) | ({"logprobs": logprobs} if logprobs else {})])

    def finish(self, reply: Reply) -> None:
        """Write the whole answer, or the end of the stream; ``reply`` is that of the last round."""
        if not self._request.stream:
            self._run.send(json.dumps(self._completion(reply)).encode())
            return
        self._send_chunk([_choice({}, _finish_reason(reply))])
        if self._request.usage and reply.usage:
            self._send_chunk([], usage=reply.usage)
        self._run.send(sse.DONE)

    def _completion(self, reply: Reply) -> Object:
        choice = dict(self._piece["choices"][0])
        message = {**choice["message"], "role": "assistant"}
        for name in ("tool_calls", "function_call", "reasoning", "reasoning_content"):
            message.pop(name, None)
        calls = [call.as_message_part() for call in reply.client_calls]
        message["content"] = self.text or (None if calls else "")
        if calls:
            message["tool_calls"] = calls
        if reply.reasoning:
            message |= under_both_names(reply.reasoning)
        choice |= {"index": 0, "message": message, "finish_reason": _finish_reason(reply)}
        choice["logprobs"] = _complete_logprobs(choice)
        return self._object("chat.completion", self._piece, choices=[choice])

    def _send_chunk(self, choices: list[Object], **more: Any) -> None:
        passed_on = {k: v for k, v in self._piece.items() if k not in ("choices", "usage")}
        chunk = self._object("chat.completion.chunk", passed_on, choices=choices, **more)
        self._run.send(sse.encode_event(chunk))

    def _object(self, kind: str, passed_on: Object, **more: Any) -> Object:
        own = {"id": self._id, "object": kind, "model": self._model}
        return {"created": int(time.time()), **passed_on, **own, **more}


def _choice(delta: Object, finish: str | None = None) -> Object:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _finish_reason(reply: Reply) -> str:
    """Why an answer ended, in terms of what the client has of it."""
    if reply.finish in ("length", "content_filter"):
        return reply.finish
    return "tool_calls" if reply.client_calls else "stop"


def _complete_logprobs(choice: Mapping[str, Any]) -> Object | None:
    """A choice's logprobs with the fields that OpenAI's have and mlx_lm.server leaves out."""
    given = choice.get("logprobs")
    if not isinstance(given, dict) or not isinstance(given.get("content"), list):
        return given if isinstance(given, dict) else None
    return {**given, "content": [_complete_entry(entry) for entry in given["content"]]}


def _complete_entry(entry: Any) -> Object:
    entry = dict(entry) if isinstance(entry, dict) else {}
    # As vLLM writes a token that is only known by its number.
    entry.setdefault("token", f"token_id:{entry.get('id')}")
    entry.setdefault("bytes", None)  # the tokenizer's own spelling does not say which they are
    top = entry.get("top_logprobs")
    entry["top_logprobs"] = [_complete_entry(e) for e in top] if isinstance(top, list) else []
    return entry
