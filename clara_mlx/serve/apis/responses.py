"""OpenAI's Responses: a body read into the inner form; see `responses_stream` for the answers.

Written here rather than taken from llm-rosetta, which converts between the APIs, too: its streams
miss fields of OpenAI's types, it passes hosted tools on as functions, and an item that stands for
our own fold needs the memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clara_mlx.context.messages import is_instruction
from clara_mlx.serve import sse
from clara_mlx.serve.apis.checks import (
    MOST_MESSAGES,
    MOST_PARTS,
    check_number,
    check_whole_number,
)
from clara_mlx.serve.apis.responses_compaction import CompactedWriter, CompactionWriter
from clara_mlx.serve.apis.responses_items import read_content, read_items
from clara_mlx.serve.apis.responses_stream import ResponsesWriter
from clara_mlx.serve.apis.responses_tools import Tools, read_choice, read_tools
from clara_mlx.serve.errors import ApiError, invalid_field
from clara_mlx.serve.reply import Object
from clara_mlx.serve.request import ChatRequest, has_images, repair
from clara_mlx.serve.runs import Run

# Items of a request: a message has two or three.
_MOST_ITEMS = 3 * MOST_MESSAGES

# Fields that mean the same in chat completions.
_SAME = ("temperature", "top_p", "parallel_tool_calls", "stop", "seed")

# Fields that tell callers and conversations apart, see `callers.IDENTIFIERS`.
_NAMES = ("metadata", "prompt_cache_key", "user", "safety_identifier", "session_id")

# Fields that an answer repeats as they were given.
_REPEATED = (
    *("instructions", "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls"),
    *("prompt_cache_key", "reasoning", "safety_identifier", "temperature", "text", "tool_choice"),
    *("tools", "top_p", "truncation", "user"),
)

# The type of an item that ends the input of a request for a compaction.
_TRIGGER = "compaction_trigger"

# What needs a server that keeps conversations, and what to send instead.
_KEPT_ELSEWHERE = {
    "previous_response_id": "send the whole conversation as input",
    "conversation": "send the whole conversation as input",
    "prompt": "send its text as instructions",
}


class ResponsesApi:
    """OpenAI's Responses; see `apis.Api`."""

    name = "responses"
    path = "/v1/responses"

    def read(self, body: Mapping[str, Any], caller: str | None) -> ChatRequest:
        """See `read_request`; one that ends in a trigger asks for a compaction."""
        request = read_request(body, caller, self.name)
        given = body["input"]
        is_triggered = isinstance(given, list) and given[-1].get("type") == _TRIGGER
        return _for_compaction(request) if is_triggered else request

    def writer(self, request: ChatRequest, run: Run) -> ResponsesWriter | CompactionWriter:
        """What writes the answer, which is one compaction if that is what is asked for."""
        if request.compaction_only:
            return CompactionWriter(request, run)
        return ResponsesWriter(request, run)

    def error_body(self, error: ApiError) -> Object:
        """OpenAI's shape; what others call messages is the input here."""
        body = error.body()
        if error.param == "messages":
            body["error"]["param"] = "input"
        return body

    def error_event(self, error: ApiError) -> bytes:
        """For streams that have no event yet; the writer ends the others, see `Run.error_event`."""
        fields = {"code": error.code, "message": str(error), "param": error.param}
        return sse.encode_event({"type": "error", **fields, "sequence_number": 0}, "error")

    def keepalive(self, text: str) -> bytes:
        """A comment, which clients skip."""
        return sse.encode_comment(text)


class CompactApi(ResponsesApi):
    """A conversation is compacted as its client asks for it, without a call to a model."""

    name = "responses-compact"
    path = "/v1/responses/compact"

    def read(self, body: Mapping[str, Any], caller: str | None) -> ChatRequest:
        """See `read_request`; what users said is given back beside the compaction."""
        request = _for_compaction(read_request(body, caller, self.name))
        users = [item for item in _read_input(body["input"]) if _is_users(item)]
        return replace(request, stream=False, echo={"users": users})

    def writer(self, request: ChatRequest, run: Run) -> CompactedWriter:
        """See `CompactedWriter`."""
        return CompactedWriter(request, run)


def read_request(body: Mapping[str, Any], caller: str | None, api: str) -> ChatRequest:
    """Check the body of a request and bring it into the inner form.

    Args:
        body: The body.
        caller: What else tells the request from others with the same body.
        api: The name of the API that it came by.

    Raises:
        ApiError: A field is not what OpenAI's API takes, or needs a server that keeps responses.
    """
    given = {key: value for key, value in body.items() if value is not None}
    _refuse_what_is_kept_elsewhere(given)
    items = _read_input(given.get("input"))
    stream = given.get("stream", False)
    if not isinstance(stream, bool):
        raise invalid_field("stream", "must be true or false")
    tools = read_tools(_all_tools(given, items))
    instructions = given.get("instructions", [])
    if isinstance(instructions, str):
        instructions = [{"role": "system", "content": instructions}] if instructions else []
    if not isinstance(instructions, list):
        raise invalid_field("instructions", "must be a string or a list of items")
    messages = read_items(items, tools, "input")
    if not messages:
        raise invalid_field("input", "must have at least one message")
    messages = repair([*read_items(instructions, tools, "instructions"), *messages])
    options = _read_options(given, tools)
    canonical = json.dumps([api, body, caller], sort_keys=True).encode()
    return ChatRequest(
        messages=messages,
        tools=tools.sent,
        options=options,
        stream=stream,
        usage=stream,
        key=hashlib.sha256(canonical).digest(),
        api=api,
        echo={
            "fields": {name: given[name] for name in _REPEATED if name in given},
            "custom": tools.custom,
            "namespaced": tools.namespaced,
        },
        has_images=has_images(messages),
        compact_above=_read_threshold(given.get("context_management")),
    )


def _for_compaction(request: ChatRequest) -> ChatRequest:
    if all(map(is_instruction, request.messages)):
        raise invalid_field("input", "has nothing to compact: there are only instructions")
    return replace(request, compaction_only=True)


def _refuse_what_is_kept_elsewhere(given: Mapping[str, Any]) -> None:
    for name, instead in _KEPT_ELSEWHERE.items():
        if name in given:
            message = f"{name} is not served: this server keeps no responses; {instead}"
            raise ApiError(400, message, param=name, code="unsupported_parameter")
    if given.get("background") is True:
        raise ApiError(
            400,
            "background is not served: this server answers while the request is open",
            param="background",
            code="unsupported_parameter",
        )


def _read_input(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise invalid_field("input", "must be a string or a list with at least one item")
    if len(given) > _MOST_ITEMS:
        raise invalid_field("input", f"must be a list of at most {_MOST_ITEMS:,} items")
    contents = (one.get("content") for one in given if isinstance(one, dict))
    if sum(len(one) for one in contents if isinstance(one, list)) > MOST_PARTS:
        raise invalid_field("input", f"must have at most {MOST_PARTS:,} parts in all")
    return given


def _all_tools(given: Mapping[str, Any], items: list[Any]) -> Any:
    """The tools of a request, and those that came by its items since."""
    tools = given.get("tools", [])
    for item in items:
        if isinstance(item, dict) and item.get("type") in (
            "additional_tools",
            "tool_search_output",
        ):
            more = item.get("tools")
            if isinstance(tools, list) and isinstance(more, list):
                tools = [*tools, *(one for one in more if isinstance(one, dict))]
    return tools


def _read_options(given: Mapping[str, Any], tools: Tools) -> Object:
    """The options of a request under the names that chat completions have for them."""
    options: Object = {name: given[name] for name in (*_SAME, *_NAMES) if name in given}
    for name, most in (("temperature", 2), ("top_p", 1)):
        check_number(given, name, most)
    check_whole_number(given, "max_output_tokens")
    if "max_output_tokens" in given:
        options["max_tokens"] = given["max_output_tokens"]
    reasoning = given.get("reasoning", {})
    if not isinstance(reasoning, dict):
        raise invalid_field("reasoning", "must be an object")
    if isinstance(reasoning.get("effort"), str):
        options["reasoning_effort"] = reasoning["effort"]
    if (form := _read_format(given.get("text", {}))) is not None:
        options["response_format"] = form
    if (choice := read_choice(given.get("tool_choice", "auto"), tools)) is not None:
        options["tool_choice"] = choice
    if not tools.sent:
        options.pop("parallel_tool_calls", None)
    return options


def _read_format(text: Any) -> Object | None:
    """The form that an answer must have; None: any."""
    form = text.get("format") if isinstance(text, dict) else None
    if not isinstance(text, dict) or not isinstance(form, dict | None):
        raise invalid_field("text", "must be an object, and its format, too")
    kind = (form or {}).get("type")
    if form is None or kind == "text":
        return None
    if kind == "json_schema":
        fields = ("name", "schema", "strict", "description")
        return {"type": kind, kind: {name: form[name] for name in fields if name in form}}
    return dict(form)


def _read_threshold(given: Any) -> int | None:
    """The tokens above which a client wants its conversation compacted, if it says so."""
    for entry in given if isinstance(given, list) else ():
        tokens = entry.get("compact_threshold") if isinstance(entry, dict) else None
        if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0:
            return tokens
    return None


def _is_users(item: Any) -> bool:
    """Whether an item is a message of a user."""
    if not isinstance(item, dict) or item.get("role") != "user":
        return False
    return item.get("type", "message") == "message" and bool(read_content(item.get("content"), ""))
