"""Asks the gateway over HTTP, as any of its clients does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from clara_mlx.errors import ClaraError, reason

# Seconds to wait for what the gateway answers by itself.
_SECONDS = 10.0

# Bytes of an answer that are read; those of the checks are far smaller.
_MOST_BYTES = 32 << 20


class Unreachable(ClaraError):
    """Nothing answers at the gateway's URL, or what answers is no gateway."""


@dataclass(frozen=True)
class Answered:
    """What came back: the status, the headers with names in lower case, and the body."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def data(self) -> Any:
        """The body as JSON; None if it is something else."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def error(self) -> str:
        """What the body says of an error, whatever API's form it has."""
        data = self.data
        found = data.get("error", data) if isinstance(data, dict) else None
        if isinstance(found, dict):
            found = found.get("message")
        return str(found or self.body[:300] or f"status {self.status}")


def ask(
    url: str,
    path: str,
    token: str | None = None,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    seconds: float = _SECONDS,
) -> Answered:
    """Send one request: GET, or POST if there is a body.

    Raises:
        Unreachable: Nobody answers.
    """
    given = {"content-type": "application/json", **(headers or {})}
    if token:
        given["authorization"] = f"Bearer {token}"
    # A gateway on this machine must not be looked for behind a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    content = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url + path, content, given)
        with opener.open(request, timeout=seconds) as answer:
            return _answered(answer)
    except urllib.error.HTTPError as error:
        with error:
            return _answered(error)
    except (OSError, ValueError, HTTPException) as error:
        why = getattr(error, "reason", error)
        why = reason(why) if isinstance(why, Exception) else str(why)
        raise Unreachable(f"{url}: no gateway answers ({why})") from error


def _answered(answer: Any) -> Answered:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    body = answer.read(_MOST_BYTES).decode("utf-8", "replace")
    return Answered(answer.status, headers, body)


def ask_models(url: str, token: str | None) -> tuple[str, int | None]:
    """The name of the gateway's model, and its window in tokens, if it says that.

    Raises:
        Unreachable: Nobody answers, or something that is no gateway.
        ClaraError: The gateway refuses the token.
    """
    answered = ask(url, "/v1/models", token)
    if answered.status in (401, 403):
        raise ClaraError(f"{url}: the gateway refuses the token; give it with --token")
    data = answered.data
    models = data.get("data") if isinstance(data, dict) else None
    first = models[0] if isinstance(models, list) and models else None
    if answered.status != 200 or not isinstance(first, dict) or not first.get("id"):
        raise Unreachable(f"{url}: what answers there lists no model ({answered.error})")
    window = first.get("max_model_len")
    return str(first["id"]), window if isinstance(window, int) and window > 0 else None
