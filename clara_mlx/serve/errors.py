"""Errors as clients of OpenAI's API expect them, and what an endpoint's errors mean to a client."""

from __future__ import annotations

import json
import re
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

# Characters of an endpoint's message that are passed on, and of each other field of its errors.
_MESSAGE_CHARACTERS = 2000
_FIELD_CHARACTERS = 200

# What a Retry-After header may hold: seconds or a date.
_RETRY_AFTER = re.compile(r"[\w ,:+-]{1,64}", re.ASCII)

# OpenAI's error types, by HTTP status.
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

# The HTTP status that a client gets when an endpoint could not answer; 502 for other reasons.
_UNAVAILABLE = {"timeout": 504, "connection": 503}


class ApiError(ClaraError):
    """What a client gets instead of an answer.

    Attributes:
        status: The status of the HTTP response.
        retry: Whether the same request may succeed later; sent as ``x-should-retry``, which
            openai-python honours.
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
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry = retry
        self.retry_after = retry_after
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
        # It came from outside, and may hold what no header can.
        if self.retry_after and _RETRY_AFTER.fullmatch(self.retry_after):
            more["retry-after"] = self.retry_after
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
    """An endpoint could not answer, through no fault of the request."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def as_api_error(self) -> ApiError:
        """What a client gets when no other endpoint can answer."""
        return ApiError(
            _UNAVAILABLE.get(self.reason, 502),
            str(self),
            code=f"upstream_{self.reason}",
            # After a timeout the same prompt would only be prefilled for as long again.
            retry=self.reason != "timeout",
        )


def invalid_field(field: str, problem: str) -> ApiError:
    """The error for a field with a wrong value; ``problem`` follows its name: "must be ..."."""
    return ApiError(400, f"{field} {problem}", param=field, code="invalid_value")


def prompt_too_long(tokens: int, window: int, reserve: int) -> Overflow:
    """The error for a prompt of ``tokens`` tokens where ``window - reserve`` fit."""
    return Overflow(
        f"This model's maximum context length is {window} tokens, of which {reserve} are kept for "
        f"the answer. However, your messages resulted in {tokens} tokens. Please reduce the length "
        "of the messages.",
        (tokens, window - reserve),
    )


def error_of_response(
    who: str, status: int, content: bytes, retry_after: str | None = None
) -> ApiError | Unavailable:
    """What an endpoint's response other than 200 means to the client.

    Errors of the caller's making become an `ApiError` of that status. What another endpoint might
    do better becomes `Unavailable` or `Overflow`.
    """
    given = _fields_of_body(content)
    message = given.get("message") or f"{who} answered with status {status}"
    if status < 500 and _says_overflow(given):
        return Overflow(message)
    if status >= 500 or (status == 404 and _FAILED_INSIDE.search(message)):
        return Unavailable("5xx", f"{who} failed: {message}")
    if status == 408:
        return Unavailable("timeout", f"{who} timed out: {message}")
    if status in (401, 403):
        return ApiError(502, f"{who} rejects the gateway's key: {message}", code="upstream_key")
    if status == 429:
        return ApiError(429, message, code=given.get("code"), retry=True, retry_after=retry_after)
    if status == 404:
        if "message" not in given or message.strip() == "Not Found":
            return ApiError(
                502,
                f"{who} does not serve chat completions at the URL that the gateway was given",
                code="upstream_url_wrong",
            )
        status = 400  # mlx_lm.server's way to say that it can't render or run these messages
    if not 400 <= status < 500:
        return Unavailable("broken", f"{who} answered with status {status}")
    return ApiError(
        status, message, code=given.get("code"), param=given.get("param"), type=given.get("type")
    )


def error_of_event(who: str, error: Any) -> Overflow | Unavailable:
    """What an error event in an endpoint's stream means to the client."""
    given = _fields(error)
    message = given.get("message") or "no reason given"
    if _says_overflow(given):
        return Overflow(message)
    return Unavailable("broken", f"{who} failed in its answer: {message}")


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
