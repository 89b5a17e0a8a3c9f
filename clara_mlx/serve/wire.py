"""What two processes of the gateway tell each other of a conversation, as JSON values and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from clara_mlx.context.budget import Exchange
from clara_mlx.memory.asking import Answer
from clara_mlx.serve.callers import Caller, Name
from clara_mlx.serve.conversations import Landmark
from clara_mlx.serve.desk import NearDesk, Remembered
from clara_mlx.serve.errors import ApiError, Overflow
from clara_mlx.serve.preparing import Prompt, Tools
from clara_mlx.serve.request import ChatRequest
from clara_mlx.store.results import Hit

#: What `json` writes, with nothing but its own types inside.
Value = dict[str, Any]


def write_caller(caller: Caller) -> Value:
    """Who sends a request."""
    return {**asdict(caller), "values": dict(caller.values)}


def read_caller(value: Value) -> Caller:
    """The opposite of `write_caller`."""
    return Caller(**value)


def write_outline(desk: NearDesk) -> Value:
    """What is known of a conversation and its request without the texts."""
    request = desk.request
    return {
        "name": [desk.name.text, desk.name.certain],
        "project": desk.project,
        "tools": request.tools,
        "options": request.options,
        "stream": request.stream,
        "usage": request.usage,
        "key": request.key.hex(),
        "api": request.api,
        "echo": request.echo,
        "has_images": request.has_images,
        "compaction_only": request.compaction_only,
        "compact_above": request.compact_above,
        "call_ids": sorted(desk.call_ids),
        "landmarks": [[one.place, one.digest.hex(), one.proof] for one in desk.landmarks()],
    }


def read_request(outline: Value) -> ChatRequest:
    """The request of an outline, without its messages."""
    return ChatRequest(
        messages=[],
        tools=outline["tools"],
        options=outline["options"],
        stream=outline["stream"],
        usage=outline["usage"],
        key=bytes.fromhex(outline["key"]),
        api=outline["api"],
        echo=outline["echo"],
        has_images=outline["has_images"],
        compaction_only=outline["compaction_only"],
        compact_above=outline["compact_above"],
    )


def read_name(outline: Value) -> Name:
    """The name of an outline's conversation."""
    return Name(*outline["name"])


def read_landmarks(outline: Value) -> list[Landmark]:
    """The landmarks of an outline."""
    return [Landmark(i, bytes.fromhex(digest), proof) for i, digest, proof in outline["landmarks"]]


def write_prompt(prompt: Prompt) -> Value:
    """A prompt."""
    return {
        "messages": prompt.messages,
        "tools": [prompt.tools.sent, sorted(prompt.tools.own)],
        "tokens": prompt.tokens,
        "exact": prompt.exact,
        "tokens_in": prompt.tokens_in,
        "compacted": prompt.compacted,
        "reason": prompt.reason,
        "parts": [[digest.hex(), tokens] for digest, tokens in prompt.parts],
        "overflow": prompt.overflow and [str(prompt.overflow), prompt.overflow.tokens],
        "degraded": prompt.degraded,
        "exchange": prompt.exchange and asdict(prompt.exchange),
    }


def read_prompt(value: Value) -> Prompt:
    """The opposite of `write_prompt`."""
    sent, own = value["tools"]
    return Prompt(
        messages=value["messages"],
        tools=Tools(sent, frozenset(own)),
        tokens=value["tokens"],
        exact=value["exact"],
        tokens_in=value["tokens_in"],
        compacted=tuple(value["compacted"]),
        reason=value["reason"],
        parts=[(bytes.fromhex(digest), tokens) for digest, tokens in value["parts"]],
        overflow=value["overflow"] and _read_overflow(*value["overflow"]),
        degraded=value["degraded"],
        exchange=value["exchange"] and Exchange(**value["exchange"]),
    )


def _read_overflow(message: str, tokens: list[int] | None) -> Overflow:
    return Overflow(message, (tokens[0], tokens[1]) if tokens else None)


def write_remembered(remembered: Remembered) -> list[Any]:
    """How far a conversation has been remembered."""
    return [remembered[0], remembered[1].hex()]


def read_remembered(value: list[Any]) -> Remembered:
    """The opposite of `write_remembered`."""
    return value[0], bytes.fromhex(value[1])


def write_api_error(error: ApiError) -> Value:
    """What a client gets instead of an answer."""
    names = ("status", "code", "param", "type", "retry", "retry_after", "retry_after_ms")
    return {"message": str(error), **{name: getattr(error, name) for name in names}}


def read_api_error(value: Mapping[str, Any]) -> ApiError:
    """The opposite of `write_api_error`."""
    return ApiError(**value)


def write_answer(answer: Answer) -> Value:
    """What a memory with a model answered."""
    return asdict(answer)


def read_answer(value: Value) -> Answer:
    """The opposite of `write_answer`."""
    hits = [Hit(**{**hit, "found_by": tuple(hit["found_by"])}) for hit in value["evidence"]]
    return Answer(**{**value, "evidence": hits})
