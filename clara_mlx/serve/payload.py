"""What is sent to an endpoint: the options that it knows, within its limits."""

from __future__ import annotations

import json
from typing import Any

from clara_mlx.context import Counter
from clara_mlx.context.counting import for_template
from clara_mlx.context.messages import Message, with_note
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.preparing import Prompt, Tools
from clara_mlx.serve.reply import Object
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.settings import Remote, Settings

# Options that every OpenAI-compatible API knows; local servers have more, which others refuse.
_COMMON = frozenset(
    (
        *("temperature", "top_p", "stop", "seed", "max_tokens", "max_completion_tokens"),
        *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"),
        *("response_format", "tool_choice", "parallel_tool_calls", "reasoning_effort", "user"),
    )
)
# Options that are not sent to a server that ignores them.
_IGNORED = ("response_format", "tool_choice", "parallel_tool_calls", "n")
# Options that are refused without tools.
_OF_TOOLS = ("tool_choice", "parallel_tool_calls")

# What says who the client is, which no model needs to know.
_OF_THE_CLIENT = ("metadata",)

_CALL_NOW = "\n\n(Answer this by calling {}.)"
_WRITE_JSON = "\n\n(Answer with nothing but JSON that follows this schema: {})"

# Stands in the place of what a model that reads text only can't be shown.
_UNSEEN = "({}, which this model can't see: it reads text only)"
_KINDS = {"image_url": "an image", "file": "a document"}


def unsupported_option(request: ChatRequest, remote: Remote) -> ApiError | None:
    """Why an endpoint that ignores options can't answer a request as its client expects.

    Agents that speak other APIs ask for a format in passing, as for the title of a session. To them
    an answer that may be wrong is worth more than none: the format is asked for in words.
    """
    form = request.options.get("response_format")
    if request.api != "chat" or remote.obeys or form is None:
        return None
    if isinstance(form, dict) and form.get("type") == "text":
        return None
    return ApiError(
        400,
        "the reasoner's server does not enforce response_format; ask for the format in words",
        param="response_format",
        code="unsupported_parameter",
    )


def for_reasoner(
    request: ChatRequest, prompt: Prompt, settings: Settings, counter: Counter
) -> Object:
    """The request as the reasoner gets it; the answer is limited to what the window leaves.

    Args:
        request: The client's request.
        prompt: The messages and tools that are sent in place of the client's.
        settings: The settings of the gateway.
        counter: Knows what the reasoner's template takes.
    """
    options = {k: v for k, v in request.options.items() if k not in _OF_THE_CLIENT}
    sent = for_template(counter, prompt.messages)
    if request.has_images and not settings.reasoner.images:
        sent = [_as_text(message) for message in sent]
    if not settings.reasoner.obeys:
        must_call = _demanded_tool(options.get("tool_choice"))
        if must_call and prompt.tools.sent:
            sent[-1] = with_note(sent[-1], _CALL_NOW.format(must_call))
        schema = _demanded_schema(options.get("response_format"))
        if schema:
            sent[-1] = with_note(sent[-1], _WRITE_JSON.format(json.dumps(schema)))
        for name in _IGNORED:
            options.pop(name, None)
    if not prompt.tools.sent:
        for name in _OF_TOOLS:
            options.pop(name, None)
    wanted = options.pop("max_completion_tokens", None)
    wanted = wanted or options.pop("max_tokens", settings.budget.reserve)
    options["max_tokens"] = max(1, min(wanted, settings.budget.window - prompt.tokens))
    return _payload(request, settings.reasoner, sent, prompt.tools, options)


def for_fallback(
    request: ChatRequest,
    messages: list[Message],
    tools: Tools,
    remote: Remote,
    *,
    wants_reasoning: bool,
) -> Object:
    """The request as the fallback gets it: only what every such API knows.

    Args:
        request: The client's request.
        messages: What is sent in place of its messages.
        tools: The tools that are sent with them.
        remote: The fallback.
        wants_reasoning: Whether it is sent the reasoning of earlier answers.
    """
    options = {key: value for key, value in request.options.items() if key in _COMMON}
    if not tools.sent:
        for name in _OF_TOOLS:
            options.pop(name, None)
    sent = messages
    if not wants_reasoning:
        sent = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in messages]
    return _payload(request, remote, sent, tools, options)


def _demanded_tool(choice: Any) -> str | None:
    """The tool that a ``tool_choice`` demands, in words; None if it demands none."""
    if choice == "required":
        return "one of the tools"
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return f"the tool {name}" if isinstance(name, str) else None


def _demanded_schema(form: Any) -> Object | None:
    """The schema that a ``response_format`` demands; None if it demands none."""
    match form:
        case {"json_schema": {"schema": dict(schema)}}:
            return schema
    return None


def _as_text(message: Message) -> Message:
    """The message with words in the place of its images and documents."""
    content = message["content"]
    if not isinstance(content, list) or all(part["type"] == "text" for part in content):
        return message
    texts = [
        part["text"]
        if part["type"] == "text"
        else _UNSEEN.format(_KINDS.get(part["type"], "a part of another kind"))
        for part in content
    ]
    return {**message, "content": "\n".join(texts)}


def _payload(
    request: ChatRequest, remote: Remote, messages: list[Message], tools: Tools, options: Object
) -> Object:
    payload: Object = {"model": remote.model, "messages": messages, **options}
    if tools.sent:
        payload["tools"] = tools.sent
    payload["stream"] = request.stream
    if request.stream:
        payload["stream_options"] = {"include_usage": True}
    return payload
