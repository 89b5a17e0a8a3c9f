"""A gateway before a reasoner: OpenAI's API, the memory over REST and MCP."""

from clara_mlx.serve.app import create
from clara_mlx.serve.server import bound, server
from clara_mlx.serve.settings import Remote, Settings

__all__ = ["Remote", "Settings", "bound", "create", "server"]
