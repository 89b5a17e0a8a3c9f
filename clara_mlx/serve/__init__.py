"""A gateway in front of a reasoner: OpenAI's API, and the memory over REST and MCP."""

from clara_mlx.serve.app import create_app, create_server
from clara_mlx.serve.server import listening_socket
from clara_mlx.serve.settings import Remote, Settings

__all__ = ["Remote", "Settings", "create_app", "create_server", "listening_socket"]
