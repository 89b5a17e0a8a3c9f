"""Errors as clients of OpenAI's API expect them, and what an endpoint's errors mean to a client."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from starlette.responses import Response

from clara_mlx.errors import ClaraError
from clara_mlx.serve.json_values import BadJson, read_answer

#: Why an endpoint could not answer, or was not asked.
Reason = Literal["connection", "timeout", "5xx", "broken", "overflow", "images", "breaker"]

# How servers say that a prompt is too long: OpenAI, vLLM, llama.cpp, Ollama, xAI, LM Studio.
_OVERFLOW = re.compile(
    r"context_length_exceeded|(maximum|max) (context|prompt|model) length|context (length|window)"
    r"|exceeds? .{0,24}context|prompt is too long|input is too long|too many tokens",
    re.IGNORECASE,
)
# mlx_lm.server answers 404 when its own generation fails.
_FAILED_INSIDE = re.compile(
    r"generation thread died|\[METAL\]|out of memory|unable to allocate|malloc", re.IGNORECASE
)

# What errors say that come from a chat template, in small letters.
_OF_TEMPLATES = ("alternat", "chat template", "jinja", "message role", "roles are supported")

# Characters of an endpoint's message that are passed on, and of each other field of its errors.
_MESSAGE_CHARACTERS = 2000
_FIELD_CHARACTERS = 200

# What a header that says how long to wait may hold: a number or a date.
_RETRY_AFTER = re.compile(r"[\w ,:+-]{1,64}", re.ASCII)

# OpenAI's error types, by HTTP status.
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

# The HTTP status that a client gets when an endpoint could not answer; 502 for other reasons.
_UNAVAILABLE = {"timeout": 504, "connection": 503}

# Statuses by which an endpoint says that it is there and has too much to do; 529 is Anthropic's.
_BUSY = (503, 529)

# The statuses of errors that come where no status can be: in a stream, or in a response of 200.
_STATUSES = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 529,
}


class ApiError(ClaraError):
    """What a client gets instead of an answer.

    Attributes:
        status: The status of the HTTP response.
        retry: Whether the same request may succeed later; sent as ``x-should-retry``, which
            openai-python honours.
        retry_after: How long to wait before that, as a ``Retry-After`` header says it.
        retry_after_ms: The same in milliseconds, which OpenAI's clients look for first.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
        retry: bool = False,
        retry_after: str | None = None,
        retry_after_ms: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry = retry
        self.retry_after = retry_after
        self.retry_after_ms = retry_after_ms
        self.type = type or _TYPES.get(
            status, "invalid_request_error" if status < 500 else "server_error"
        )

    def body(self) -> dict[str, Any]:
        """The JSON body: ``{"error": {message, type, param, code}}``."""
        fields = {"type": self.type, "param": self.param, "code": self.code}
        return {"error": {"message": str(self), **fields}}

    def response(
        self, headers: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> Response:
        """The HTTP response.

        Args:
            headers: Further headers.
            body: The JSON body in the shape of another API.
        """
        more = {"x-should-retry": "true" if self.retry else "false"}
        waits = {"retry-after": self.retry_after, "retry-after-ms": self.retry_after_ms}
        for name, value in waits.items():
            # It came from outside, and may hold what no header can.
            if self.retry and value and _RETRY_AFTER.fullmatch(value):
                more[name] = value
        if self.status == 401:
            more["www-authenticate"] = "Bearer"
        # Everything but ASCII is escaped, so that a message may hold lone surrogates.
        content = json.dumps(self.body() if body is None else body).encode()
        return Response(content, self.status, (headers or {}) | more, "application/json")


class Overflow(ApiError):
    """The conversation does not fit the model, in OpenAI's words, which clients look for.

    Attributes:
        tokens: Tokens of the prompt, and the most that fit; None if only an endpoint knows.
    """

    def __init__(self, message: str, tokens: tuple[int, int] | None = None) -> None:
        super().__init__(400, message, code="context_length_exceeded", param="messages")
        self.tokens = tokens


class Unavailable(ClaraError):
    """An endpoint could not answer, through no fault of the request.

    Attributes:
        reason: Why.
        is_busy: Whether it says that it has too much to do.
        retry_after: How long it asks its clients to wait, see `ApiError`.
        retry_after_ms: The same in milliseconds.
    """

    def __init__(self, reason: Reason, message: str, *, is_busy: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_busy = is_busy
        self.retry_after: str | None = None
        self.retry_after_ms: str | None = None

    def as_api_error(self) -> ApiError:
        """What a client gets when no other endpoint can answer."""
        return ApiError(
            503 if self.is_busy else _UNAVAILABLE.get(self.reason, 502),
            str(self),
            code=f"upstream_{self.reason}",
            # After a timeout the same prompt would only be prefilled for as long again.
            retry=self.reason != "timeout",
            retry_after=self.retry_after,
            retry_after_ms=self.retry_after_ms,
        )


def invalid_field(field: str, problem: str) -> ApiError:
    """The error for a field with a wrong value; ``problem`` follows its name: "must be ..."."""
    return ApiError(400, f"{field} {problem}", param=field, code="invalid_value")


def prompt_too_long(tokens: int, window: int, reserve: int, of_tools: int = 0) -> Overflow:
    """The error for a prompt of ``tokens`` tokens where ``window - reserve`` fit.

    ``of_tools`` of them are the tools' alone; where these are the trouble, the error says so.
    """
    message = (
        f"This model's maximum context length is {window} tokens, of which {reserve} are kept for "
        f"the answer. However, your messages resulted in {tokens} tokens"
    )
    advice = "Please reduce the length of the messages."
    if of_tools:
        message += f", of which the tools alone take {of_tools}"
    if of_tools > (window - reserve) // 2:
        advice = "Please offer fewer tools, or serve a larger window (--window)."
    return Overflow(f"{message}. {advice}", (tokens, window - reserve))


def is_about_roles(error: ApiError) -> bool:
    """Whether an endpoint's error seems to come from a chat template that refuses the messages."""
    said = str(error).lower()
    return not isinstance(error, Overflow) and any(words in said for words in _OF_TEMPLATES)


def error_of_response(
    who: str, status: int, content: bytes, headers: Mapping[str, str]
) -> ApiError | Unavailable:
    """What an endpoint's response other than 200 means to the client.

    Errors of the caller's making become an `ApiError` of that status. What another endpoint might
    do better becomes `Unavailable` or `Overflow`.
    """
    error = _error(who, status, _fields_of_body(content))
    error.retry_after = headers.get("retry-after")
    error.retry_after_ms = headers.get("retry-after-ms")
    return error


def error_of_event(who: str, error: Any) -> ApiError | Unavailable:
    """What an error means to the client that comes inside a stream, or in a response of 200."""
    given = _fields(error)
    status = _status_of(error)
    if status is not None or _says_overflow(given):
        return _error(who, status or 400, given)
    message = given.get("message") or "no reason given"
    return Unavailable("broken", f"{who} failed in its answer: {message}")


def _error(who: str, status: int, given: dict[str, str]) -> ApiError | Unavailable:
    """What an error with a status and fields means to the client."""
    message = given.get("message") or f"{who} answered with status {status}"
    if status < 500 and _says_overflow(given):
        return Overflow(message)
    if status >= 500 or (status == 404 and _FAILED_INSIDE.search(message)):
        return Unavailable("5xx", f"{who} failed: {message}", is_busy=status in _BUSY)
    if status == 408:
        return Unavailable("timeout", f"{who} timed out: {message}")
    if status in (401, 403):
        return ApiError(502, f"{who} rejects the gateway's key: {message}", code="upstream_key")
    if status == 429:
        return ApiError(429, message, code=given.get("code"), retry=True)
    if status == 404:
        if "message" not in given or message.strip() == "Not Found":
            return ApiError(
                502,
                f"{who} does not serve this API at the URL that the gateway was given",
                code="upstream_url_wrong",
            )
        status = 400  # mlx_lm.server's way to say that it can't render or run these messages
    if not 400 <= status < 500:
        return Unavailable("broken", f"{who} answered with status {status}")
    return ApiError(
        status, message, code=given.get("code"), param=given.get("param"), type=given.get("type")
    )


def _status_of(error: Any) -> int | None:
    """The HTTP status that an error names, as a number or by its kind; None if it names none."""
    if not isinstance(error, dict):
        return None
    for name in ("status", "code", "type"):
        value = error.get(name)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
        if isinstance(value, str) and value in _STATUSES:
            return _STATUSES[value]
    return None


def _says_overflow(given: dict[str, str]) -> bool:
    is_code = given.get("code") == "context_length_exceeded"
    return is_code or bool(_OVERFLOW.search(given.get("message", "")))


def _fields_of_body(content: bytes) -> dict[str, str]:
    try:
        parsed = read_answer(content)
    except BadJson:
        text = content[:500].decode("utf-8", "replace").strip()
        return {"message": text} if text and "<" not in text else {}  # "<": a page of a proxy
    if isinstance(parsed, dict):
        return _fields(parsed.get("error") or parsed.get("detail") or parsed.get("message"))
    return {}


def _fields(error: Any) -> dict[str, str]:
    """The fields of an error in any of the shapes that servers give it."""
    if not isinstance(error, dict):
        error = {"message": error} if error else {}
    known = {key: error.get(key) for key in ("type", "param", "code")}
    fields = {k: _written(v)[:_FIELD_CHARACTERS] for k, v in known.items() if v is not None}
    if error.get("message") is not None:
        fields["message"] = _cut(_written(error["message"]))
    return fields


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cut(message: str) -> str:
    if len(message) <= _MESSAGE_CHARACTERS:
        return message
    return f"{message[:_MESSAGE_CHARACTERS]} ... (of {len(message):,} characters)"
