"""What is sent to an endpoint for a request: its dialect, its limits, what it would ignore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clara_mlx.context import Budget, Counter
from clara_mlx.context.messages import Message, is_instruction, with_note
from clara_mlx.errors import ClaraError
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.settings import Remote

# What every OpenAI-compatible API knows; local servers have more, which others refuse.
_COMMON = frozenset(
    (
        *("temperature", "top_p", "stop", "seed", "max_tokens", "max_completion_tokens"),
        *("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"),
        *("response_format", "tool_choice", "parallel_tool_calls", "reasoning_effort", "user"),
    )
)
_IGNORED = ("response_format", "tool_choice", "parallel_tool_calls", "n")
_CALL_NOW = "\n\n(Answer this by calling {}.)"


def refused(request: ChatRequest, remote: Remote) -> ApiError | None:
    """Why an endpoint that does not obey can't answer a request as its client expects."""
    form = request.options.get("response_format")
    if remote.obeys or form is None or (isinstance(form, dict) and form.get("type") == "text"):
        return None
    return ApiError(
        400,
        "response_format: the reasoner's server does not enforce one; ask for the format in words",
        param="response_format",
        code="unsupported_parameter",
    )


def without_tools(request: ChatRequest, remote: Remote) -> bool:
    """Whether no tool may be shown: the only way that a server which ignores "none" obeys it."""
    return not remote.obeys and request.options.get("tool_choice") == "none"


def for_reasoner(
    request: ChatRequest,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]],
    remote: Remote,
    budget: Budget,
    tokens: int,
    *,
    late_system: bool = True,
) -> dict[str, Any]:
    """The request as the reasoner gets it; the answer is limited to what the window leaves.

    Args:
        request: of the client.
        messages: to send in place of the client's.
        tools: to offer.
        remote: the reasoner.
        budget: its window.
        tokens: of the prompt.
        late_system: its template takes system messages that aren't the first.
    """
    options = dict(request.options)
    sent = list(messages)
    if not late_system:
        sent = [
            {**m, "role": "user"} if index and is_instruction(m) else m
            for index, m in enumerate(sent)
        ]
    if not remote.obeys:
        must_call = _must_call(options.get("tool_choice"))
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
    tools: Sequence[dict[str, Any]],
    remote: Remote,
) -> dict[str, Any]:
    """The request as the fallback gets it: only what every such API knows."""
    known = {key: value for key, value in request.options.items() if key in _COMMON}
    if not tools:
        known.pop("tool_choice", None)
        known.pop("parallel_tool_calls", None)
    sent = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in messages]
    return _payload(request, remote, sent, tools, known)


def takes_late_system(counter: Counter) -> bool:
    """Whether the reasoner's template takes system messages after the first; if known."""
    talk = [("system", "a"), ("user", "b"), ("assistant", "c"), ("system", "d"), ("user", "e")]
    try:
        counter.prompt([{"role": role, "content": text} for role, text in talk])
    except ClaraError:
        return False
    return True


def _must_call(choice: Any) -> str | None:
    if choice == "required":
        return "one of the tools"
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return f"the tool {name}" if isinstance(name, str) else None


def _payload(
    request: ChatRequest,
    remote: Remote,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]],
    options: dict[str, Any],
) -> dict[str, Any]:
    payload: dict[str, Any] = {"model": remote.model, "messages": list(messages), **options}
    if tools:
        payload["tools"] = list(tools)
    payload["stream"] = request.stream
    if request.stream:
        payload["stream_options"] = {"include_usage": True}
    return payload
