"""The paths of the gateway: those that clients build from their base URL, and those that are not.

Some clients are given a base URL that ends in ``/v1`` and some one without; some add ``/v1``
themselves. All of these lead to the same place.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from clara_mlx.serve.apis import APIS
from clara_mlx.serve.errors import ApiError

_VERSION = "/v1"

# Clients of MCP write it with a slash at the end, too, and not all of them follow a redirection.
_MCP = "/mcp"

# What follows the version in the paths that clients of models build.
_BUILT = (*(api.path.removeprefix(_VERSION) for api in APIS.values()), "/models")


class Paths:
    """ASGI middleware: leads every way of writing a path to the one that the routes have.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under the path that the routes know."""
        if scope["type"] == "http":
            path = canonical(scope["path"])
            scope = {**scope, "path": path, "raw_path": path.encode("utf-8", "replace")}
        await self.app(scope, receive, send)


def canonical(path: str) -> str:
    """The path with one version; a path that is none of the built ones stays as it is."""
    rest = path
    while rest.startswith(_VERSION + "/"):
        rest = rest.removeprefix(_VERSION)
    if path == _MCP + "/":
        return _MCP
    is_built = any(rest == one or rest.startswith(one + "/") for one in _BUILT)
    return _VERSION + rest if is_built else path


def not_found(path: str) -> ApiError:
    """The error for a path that leads nowhere, which names those that do."""
    served = ", ".join((*(api.path for api in APIS.values()), "/v1/models", "/v1/memory", "/mcp"))
    return ApiError(404, f"nothing is served at {path[:200]}; this server has {served}")
