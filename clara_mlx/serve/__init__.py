"""A gateway in front of a reasoner: OpenAI's API, and the memory over REST and MCP."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clara_mlx.serve.app import create_app, create_server
    from clara_mlx.serve.server import listening_socket
    from clara_mlx.serve.settings import Remote, Settings

__all__ = ["Remote", "Settings", "create_app", "create_server", "listening_socket"]


def __getattr__(name: str) -> Any:
    """Import the server only where one is made, not in the process that prepares conversations."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clara_mlx.serve import app, server, settings

    for module in (app, server, settings):
        if name in vars(module):
            return vars(module)[name]
    raise AssertionError(name)
