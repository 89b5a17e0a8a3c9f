"""What is sent to an endpoint: the options that it knows, within its limits."""

from __future__ import annotations

from typing import Any

from clara_mlx.context.messages import Message, is_instruction, with_note
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

_CALL_NOW = "\n\n(Answer this by calling {}.)"


def unsupported_option(request: ChatRequest, remote: Remote) -> ApiError | None:
    """Why an endpoint that ignores options can't answer a request as its client expects."""
    form = request.options.get("response_format")
    if remote.obeys or form is None or (isinstance(form, dict) and form.get("type") == "text"):
        return None
    return ApiError(
        400,
        "the reasoner's server does not enforce response_format; ask for the format in words",
        param="response_format",
        code="unsupported_parameter",
    )


def for_reasoner(
    request: ChatRequest, prompt: Prompt, settings: Settings, *, late_system: bool
) -> Object:
    """The request as the reasoner gets it; the answer is limited to what the window leaves.

    Args:
        request: The client's request.
        prompt: The messages and tools that are sent in place of the client's.
        settings: The settings of the gateway.
        late_system: Whether the reasoner's template takes a system message that is not the first.
    """
    options = dict(request.options)
    sent = list(prompt.messages)
    if not late_system:
        sent[1:] = [{**m, "role": "user"} if is_instruction(m) else m for m in sent[1:]]
    if not settings.reasoner.obeys:
        must_call = _demanded_tool(options.get("tool_choice"))
        if must_call and prompt.tools.sent:
            sent[-1] = with_note(sent[-1], _CALL_NOW.format(must_call))
        for name in _IGNORED:
            options.pop(name, None)
    wanted = options.pop("max_completion_tokens", None)
    wanted = wanted or options.pop("max_tokens", settings.budget.reserve)
    options["max_tokens"] = max(1, min(wanted, settings.budget.window - prompt.tokens))
    return _payload(request, settings.reasoner, sent, prompt.tools, options)


def for_fallback(
    request: ChatRequest, messages: list[Message], tools: Tools, remote: Remote
) -> Object:
    """The request as the fallback gets it: only what every such API knows.

    Args:
        request: The client's request.
        messages: What is sent in place of its messages.
        tools: The tools that are sent with them.
        remote: The fallback.
    """
    options = {key: value for key, value in request.options.items() if key in _COMMON}
    if not tools.sent:
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
    request: ChatRequest, remote: Remote, messages: list[Message], tools: Tools, options: Object
) -> Object:
    payload: Object = {"model": remote.model, "messages": messages, **options}
    if tools.sent:
        payload["tools"] = tools.sent
    payload["stream"] = request.stream
    if request.stream:
        payload["stream_options"] = {"include_usage": True}
    return payload
