"""Anthropic's Messages: a body read into the inner form, errors in its shape.

llm-rosetta and LiteLLM convert between these forms, too. The adapter is our own because what is
special here is not conversion: blocks of several rounds with the memory go on in one message, what
changes in every request must not reach the reasoner, and whatever a client sends in passing must
never end its conversation. Neither of them does that, and the first has one maintainer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from clara_mlx.serve import sse
from clara_mlx.serve.apis.checks import (
    MOST_MESSAGES,
    MOST_PARTS,
    MOST_TOOLS,
    check_number,
    check_whole_number,
)
from clara_mlx.serve.apis.messages_content import count_blocks, read_conversation
from clara_mlx.serve.apis.messages_stream import Writer
from clara_mlx.serve.errors import ApiError, Overflow, invalid_field
from clara_mlx.serve.reply import Object
from clara_mlx.serve.request import ChatRequest, has_images, repair
from clara_mlx.serve.runs import Run

# The types of errors, by HTTP status; others are faults of the request, or of this server.
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

# Fields that have the same name and meaning in the inner form.
_SAME = ("temperature", "top_p", "top_k", "max_tokens")


class MessagesApi:
    """Anthropic's Messages; see `apis.Api`."""

    name = "messages"
    path = "/v1/messages"

    def read(self, body: Mapping[str, Any], caller: str | None) -> ChatRequest:
        """See `read_request`."""
        return read_request(body, caller)

    def writer(self, request: ChatRequest, run: Run) -> Writer:
        """See `Writer`."""
        return Writer(request, run)

    def error_body(self, error: ApiError) -> Object:
        """Anthropic's shape; a prompt that is too long in the words that Claude Code looks for."""
        usual = "invalid_request_error" if error.status < 500 else "api_error"
        kind = _ERROR_TYPES.get(error.status, usual)
        return {
            "type": "error",
            "error": {"type": kind, "message": _message(error)},
            "request_id": None,
        }

    def error_event(self, error: ApiError) -> bytes:
        """The same as an event of its own name."""
        return sse.encode_event(self.error_body(error), "error")

    def keepalive(self, text: str) -> bytes:
        """A ping."""
        return sse.encode_event({"type": "ping"}, "ping")


def _message(error: ApiError) -> str:
    if error.code != "context_length_exceeded":
        return str(error)
    if isinstance(error, Overflow) and error.tokens:
        tokens, most = error.tokens
        return f"prompt is too long: {tokens} tokens > {most} maximum. {error}"
    return f"prompt is too long: {error}"


def read_request(body: Mapping[str, Any], caller: str | None) -> ChatRequest:
    """Check the body of a request and bring it into the inner form.

    Fields that only Anthropic's servers could heed are accepted and have no effect.

    Args:
        body: The body.
        caller: What else tells the request from others with the same body.

    Raises:
        ApiError: A field is not what Anthropic's API takes.
    """
    given = {key: value for key, value in body.items() if value is not None}
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_field("messages", "must be a list with at least one message")
    if len(messages) > MOST_MESSAGES:
        raise invalid_field("messages", f"must be a list of at most {MOST_MESSAGES:,} messages")
    if count_blocks(messages) > MOST_PARTS:
        raise invalid_field("messages", f"must have at most {MOST_PARTS:,} blocks in all")
    if not isinstance(given.get("stream", False), bool):
        raise invalid_field("stream", "must be true or false")
    tools = _read_tools(given.get("tools", []))
    repaired = repair(read_conversation(given.get("system"), messages))
    stream = given.get("stream", False)
    # The name is in it because a body can be one of chat completions, too.
    canonical = json.dumps([MessagesApi.name, body, caller], sort_keys=True).encode()
    return ChatRequest(
        messages=repaired,
        tools=tools,
        options=_read_options(given, {tool["function"]["name"] for tool in tools}),
        stream=stream,
        usage=stream,
        key=hashlib.sha256(canonical).digest(),
        api=MessagesApi.name,
        echo=_read_echo(given),
        has_images=has_images(repaired),
        compact_above=_read_threshold(given.get("context_management")),
    )


def _read_tools(given: Any) -> list[Object]:
    """The tools that the client runs, by name; those that Anthropic's servers run are left out."""
    if not isinstance(given, list):
        raise invalid_field("tools", "must be a list")
    if len(given) > MOST_TOOLS:
        raise invalid_field("tools", f"must be a list of at most {MOST_TOOLS:,} tools")
    tools = []
    for index, tool in enumerate(given):
        if not isinstance(tool, dict):
            raise invalid_field(f"tools[{index}]", "must be an object")
        schema = tool.get("input_schema")
        if schema is None and tool.get("type") not in (None, "custom"):
            continue
        if not isinstance(tool.get("name"), str) or not isinstance(schema, dict):
            raise invalid_field(f"tools[{index}]", "must have a name and an input_schema")
        # In which dialect a schema is written says nothing to a model, once for each tool.
        parameters = {key: value for key, value in schema.items() if key != "$schema"}
        function = {"name": tool["name"], "parameters": parameters}
        if isinstance(tool.get("description"), str):
            function["description"] = tool["description"]
        tools.append({"type": "function", "function": function})
    return sorted(tools, key=lambda tool: str(tool["function"]["name"]))


def _read_options(given: Mapping[str, Any], names: set[str]) -> Object:
    """The fields that have a counterpart; ``names`` are those of the tools."""
    check_whole_number(given, "max_tokens")
    check_whole_number(given, "top_k", least=0)
    for name in ("temperature", "top_p"):
        check_number(given, name, most=1)
    options = {name: given[name] for name in _SAME if name in given}
    metadata = given.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("user_id"), str):
        options["metadata"] = {"user_id": metadata["user_id"]}  # may name the conversation
    stop = _stop_sequences(given)
    if stop:
        options["stop"] = stop
    return options | _read_tool_choice(given.get("tool_choice", {}), names) | _read_format(given)


def _stop_sequences(given: Mapping[str, Any]) -> list[str]:
    stop = given.get("stop_sequences", [])
    if not isinstance(stop, list) or not all(isinstance(word, str) for word in stop):
        raise invalid_field("stop_sequences", "must be a list of strings")
    return stop


def _read_tool_choice(choice: Any, names: set[str]) -> Object:
    if not isinstance(choice, dict):
        raise invalid_field("tool_choice", "must be an object with a type")
    if not names or not choice:
        return {}
    match choice:
        case {"type": "auto"}:
            options: Object = {"tool_choice": "auto"}
        case {"type": "none"}:
            options = {"tool_choice": "none"}
        case {"type": "any"}:
            options = {"tool_choice": "required"}
        case {"type": "tool", "name": str(name)}:
            # One that Anthropic's servers run is not there to be called.
            call = {"type": "function", "function": {"name": name}}
            options = {"tool_choice": call} if name in names else {}
        case _:
            raise invalid_field("tool_choice.type", "must be auto, any, tool or none")
    if choice.get("disable_parallel_tool_use") is True:
        options["parallel_tool_calls"] = False
    return options


def _read_format(given: Mapping[str, Any]) -> Object:
    """The schema that the answer is to follow, under either of its names."""
    match given:
        case {"output_config": {"format": {"schema": dict(schema)}}}:
            pass
        case {"output_format": {"schema": dict(schema)}}:  # its first name, in the beta
            pass
        case _:
            return {}
    named = {"name": "answer", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _read_echo(given: Mapping[str, Any]) -> Object:
    """What the writer needs to know of the request."""
    echo: Object = {"thinking": False, "stop_sequences": _stop_sequences(given)}
    if isinstance(given.get("model"), str):
        # Any name is the reasoner's. Claude Code sends no thought back if it is not the same.
        echo["model"] = given["model"]
    match given.get("thinking"):
        case {"type": "disabled"} | {"display": "omitted"}:
            pass
        case {"type": str()}:
            echo["thinking"] = True
    match given.get("context_management"):
        case {"edits": list(edits)}:
            echo["edits"] = [e["type"] for e in edits if isinstance(e, dict) and "type" in e]
        case {}:
            echo["edits"] = []
    return echo


def _read_threshold(given: Any) -> int | None:
    """The least tokens above which a client wants its conversation edited, if it says so."""
    thresholds: list[int] = []
    match given:
        case {"edits": list(edits)}:
            for edit in edits:
                match edit:
                    case {"trigger": {"type": "input_tokens", "value": int(value)}} if value > 0:
                        thresholds.append(value)
    return min(thresholds, default=None)
