"""Errors as OpenAI's API tells them, and what an upstream's answer means in those terms."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from starlette.responses import JSONResponse

from clara_mlx.errors import ClaraError

#: Why an upstream could not answer.
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

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(ClaraError):
    """What a client gets instead of an answer.

    Attributes:
        status: of the HTTP response.
        retry: whether the same request may succeed later; sent as ``x-should-retry``, which
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
        self.status, self.code, self.param, self.retry = status, code, param, retry
        self.type = type or _TYPES.get(
            status, "invalid_request_error" if status < 500 else "server_error"
        )
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON body: ``{"error": {message, type, param, code}}``."""
        return {
            "error": {
                "message": str(self),
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        """The HTTP response."""
        more = {"x-should-retry": "true" if self.retry else "false"}
        if self.retry_after:
            more["retry-after"] = self.retry_after
        if self.status == 401:
            more["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, (headers or {}) | more)


class Overflow(ApiError):
    """The conversation does not fit the model, in OpenAI's words, which clients look for."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message, code="context_length_exceeded", param="messages")


class Unavailable(ClaraError):
    """An upstream could not answer, through no fault of the request."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def told(self) -> ApiError:
        """What a client gets when nothing else can answer."""
        status = {"timeout": 504, "connection": 503}.get(self.reason, 502)
        # After a timeout the same prompt would only be prefilled for as long again.
        return ApiError(
            status, str(self), code=f"upstream_{self.reason}", retry=self.reason != "timeout"
        )


def too_long(tokens: int, window: int, reserve: int) -> Overflow:
    """The error for a prompt of ``tokens`` tokens where ``window - reserve`` fit."""
    return Overflow(
        f"This model's maximum context length is {window} tokens, of which {reserve} are kept for "
        f"the answer. However, your messages resulted in {tokens} tokens. Please reduce the length "
        "of the messages."
    )


def of_answer(
    who: str, status: int, content: bytes, retry_after: str | None = None
) -> ApiError | Unavailable:
    """What an upstream's answer other than 200 means for the client.

    4xx of the caller's making become an `ApiError` of that status; everything that another server
    might do better becomes `Unavailable` or `Overflow`.
    """
    given = _read(content)
    message = given.get("message") or f"{who} answered {status}"
    if status < 500 and (
        given.get("code") == "context_length_exceeded" or _OVERFLOW.search(message)
    ):
        return Overflow(message)
    if status >= 500 or (status == 404 and _FAILED_INSIDE.search(message)):
        return Unavailable("5xx", f"{who} failed: {message}")
    if status == 408:
        return Unavailable("timeout", f"{who} timed out: {message}")
    if status in (401, 403):
        return ApiError(502, f"{who} refuses the gateway's key: {message}", code="upstream_key")
    if status == 429:
        return ApiError(429, message, code=given.get("code"), retry=True, retry_after=retry_after)
    if status == 404:
        if "message" not in given or message.strip() == "Not Found":
            return ApiError(
                502, f"{who} has no chat completions at its URL", code="upstream_url_wrong"
            )
        status = 400  # mlx_lm.server's way to say that it can't render or run these messages
    if not 400 <= status < 500:
        return Unavailable("broken", f"{who} answered {status}")
    return ApiError(
        status, message, code=given.get("code"), param=given.get("param"), type=given.get("type")
    )


def of_event(who: str, error: Any) -> Overflow | Unavailable:
    """What an error event in an upstream's stream means."""
    given = _fields(error)
    message = given.get("message") or "no reason given"
    if given.get("code") == "context_length_exceeded" or _OVERFLOW.search(message):
        return Overflow(message)
    return Unavailable("broken", f"{who} failed in its answer: {message}")


def _read(content: bytes) -> dict[str, str]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        text = content[:500].decode("utf-8", "replace").strip()
        return {"message": text} if text and "<" not in text else {}
    if isinstance(parsed, dict):
        return _fields(parsed.get("error") or parsed.get("detail") or parsed.get("message"))
    return {}


def _fields(error: Any) -> dict[str, str]:
    """The fields of an error in any of the shapes that servers give it."""
    if isinstance(error, str):
        return {"message": error}
    if isinstance(error, dict):
        known = {key: error.get(key) for key in ("message", "type", "param", "code")}
        return {key: str(value) for key, value in known.items() if value is not None}
    return {"message": json.dumps(error)} if error else {}
