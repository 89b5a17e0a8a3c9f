"""What is sent to an endpoint: the options that it knows, within its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clara_mlx.context import Budget
from clara_mlx.context.messages import Message, is_instruction, with_note
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.reply import Object
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.settings import Remote

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

_CALL_NOW = "\n\n(Answer this by calling {}.)"


def unsupported_option(request: ChatRequest, remote: Remote) -> ApiError | None:
    """Why an endpoint that ignores options can't answer a request as its client expects."""
    form = request.options.get("response_format")
    if remote.obeys or form is None or (isinstance(form, dict) and form.get("type") == "text"):
        return None
    return ApiError(
        400,
        "response_format is not enforced by the reasoner's server: ask for the format in words",
        param="response_format",
        code="unsupported_parameter",
    )


def must_hide_tools(request: ChatRequest, remote: Remote) -> bool:
    """Whether no tool may be sent: that is how a server that ignores "none" is made to obey it."""
    return not remote.obeys and request.options.get("tool_choice") == "none"


def for_reasoner(
    request: ChatRequest,
    messages: Sequence[Message],
    tools: Sequence[Object],
    remote: Remote,
    budget: Budget,
    tokens: int,
    *,
    late_system: bool,
) -> Object:
    """The request as the reasoner gets it; the answer is limited to what the window leaves.

    Args:
        request: The client's request.
        messages: The messages that are sent in place of the client's.
        tools: The tools that the reasoner may call.
        remote: The reasoner.
        budget: The reasoner's window and the part of it that is reserved for the answer.
        tokens: Number of tokens of the prompt.
        late_system: Whether the reasoner's template takes a system message that is not the first.
    """
    options = dict(request.options)
    sent = list(messages)
    if not late_system:
        sent[1:] = [{**m, "role": "user"} if is_instruction(m) else m for m in sent[1:]]
    if not remote.obeys:
        must_call = _demanded_tool(options.get("tool_choice"))
        if must_call and tools:
            sent[-1] = with_note(sent[-1], _CALL_NOW.format(must_call))
        for name in _IGNORED:
            options.pop(name, None)
    wanted = options.pop("max_completion_tokens", None) or options.pop("max_tokens", budget.reserve)
    options["max_tokens"] = max(1, min(wanted, budget.window - tokens))
    return _payload(request, remote, sent, tools, options)


def for_fallback(
    request: ChatRequest,
    messages: Sequence[Message],
    tools: Sequence[Object],
    remote: Remote,
) -> Object:
    """The request as the fallback gets it: only what every such API knows."""
    options = {key: value for key, value in request.options.items() if key in _COMMON}
    if not tools:
        options.pop("tool_choice", None)
        options.pop("parallel_tool_calls", None)
    sent = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in messages]
    return _payload(request, remote, sent, tools, options)


def _demanded_tool(choice: Any) -> str | None:
    """The tool that a ``tool_choice`` demands, in words; None if it demands none."""
    if choice == "required":
        return "one of the tools"
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return f"the tool {name}" if isinstance(name, str) else None


def _payload(
    request: ChatRequest,
    remote: Remote,
    messages: Sequence[Message],
    tools: Sequence[Object],
    options: Object,
) -> Object:
    payload: Object = {"model": remote.model, "messages": list(messages), **options}
    if tools:
        payload["tools"] = list(tools)
    payload["stream"] = request.stream
    if request.stream:
        payload["stream_options"] = {"include_usage": True}
    return payload
