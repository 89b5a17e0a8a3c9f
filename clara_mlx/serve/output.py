"""Answers in OpenAI's form."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from clara_mlx.serve import sse
from clara_mlx.serve.reply import Assembly, Object, both_reasonings
from clara_mlx.serve.request import ChatRequest


def joined(before: str, text: str) -> str:
    """The text of two rounds as the client gets it."""
    return f"{before}\n\n{text}" if before and text else before + text


def finish_of(said: Assembly) -> str:
    """Why an answer ended, in terms of what the client has of it."""
    if said.finish in ("length", "content_filter"):
        return said.finish
    return "tool_calls" if said.client_calls else "stop"


def completion(
    id: str, model: str, upstream: Mapping[str, Any], said: Assembly, seen: str
) -> Object:
    """An answer in one piece; fields of the server that aren't named here are passed on.

    Args:
        id: of the answer.
        model: that answered.
        upstream: the server's last answer.
        said: the same, read.
        seen: the text of all rounds.
    """
    choice = dict(upstream["choices"][0])
    message = {**choice["message"], "role": "assistant"}
    for name in ("tool_calls", "reasoning", "reasoning_content"):
        message.pop(name, None)
    calls = [call.written() for call in said.client_calls]
    message["content"] = seen or (None if calls else "")
    if calls:
        message["tool_calls"] = calls
    if said.reasoning:
        message |= both_reasonings(said.reasoning)
    choice |= {"index": 0, "message": message, "finish_reason": finish_of(said)}
    choice["logprobs"] = named_logprobs(choice)
    own = {"id": id, "object": "chat.completion", "model": model, "choices": [choice]}
    return {"created": int(time.time()), **upstream, **own}


def chunk(
    id: str,
    model: str,
    upstream: Mapping[str, Any],
    delta: Object,
    finish: str | None = None,
    logprobs: Object | None = None,
) -> bytes:
    """A chunk of a stream as an event."""
    choice: Object = {"index": 0, "delta": delta, "finish_reason": finish}
    if logprobs:
        choice["logprobs"] = logprobs
    return sse.event(_chunk(id, model, upstream, [choice]))


def stream_end(
    id: str, model: str, upstream: Mapping[str, Any], said: Assembly, request: ChatRequest
) -> Iterator[bytes]:
    """The last events of a stream: why it ended, the usage if it was asked for, and the end."""
    yield chunk(id, model, upstream, {}, finish_of(said))
    if request.usage and said.usage:
        yield sse.event(_chunk(id, model, upstream, []) | {"usage": said.usage})
    yield sse.DONE


def _chunk(id: str, model: str, upstream: Mapping[str, Any], choices: list[Object]) -> Object:
    own = {"id": id, "object": "chat.completion.chunk", "model": model, "choices": choices}
    return {"created": int(time.time()), **upstream, **own}


def named_logprobs(choice: Mapping[str, Any]) -> Object | None:
    """A choice's logprobs with the fields that OpenAI's have and mlx_lm.server leaves out."""
    given = choice.get("logprobs")
    if not isinstance(given, dict) or not isinstance(given.get("content"), list):
        return given if isinstance(given, dict) else None
    return {**given, "content": [_named(entry) for entry in given["content"]]}


def _named(entry: Any) -> Object:
    entry = dict(entry) if isinstance(entry, dict) else {}
    # As vLLM writes a token that is only known by its number.
    entry.setdefault("token", f"token_id:{entry.get('id')}")
    entry.setdefault("bytes", None)  # the tokenizer's own spelling does not tell them
    top = entry.get("top_logprobs")
    entry["top_logprobs"] = [_named(other) for other in top] if isinstance(top, list) else []
    return entry
