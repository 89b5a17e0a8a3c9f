"""The APIs that clients speak: each reads requests into one inner form, and writes answers back."""

from __future__ import annotations

from starlette.responses import Response

from clara_mlx.serve.apis.api import Api, Writer
from clara_mlx.serve.apis.chat import ChatApi
from clara_mlx.serve.apis.messages import MessagesApi
from clara_mlx.serve.apis.responses import CompactApi, ResponsesApi
from clara_mlx.serve.errors import ApiError

__all__ = ["APIS", "Api", "Writer", "api_of_path", "error_response"]

_CHAT = ChatApi()

#: The APIs by name.
APIS: dict[str, Api] = {
    api.name: api for api in (_CHAT, MessagesApi(), ResponsesApi(), CompactApi())
}


def api_of_path(path: str) -> Api:
    """The API that a path belongs to; chat completions for a path of none."""
    for api in APIS.values():
        if path == api.path or path.startswith(api.path + "/"):
            return api
    return _CHAT


def error_response(error: ApiError, path: str, headers: dict[str, str] | None = None) -> Response:
    """The response to a request to a path, in the shape that its clients read."""
    return error.response(headers, api_of_path(path).error_body(error))
