"""The settings of the gateway, which do not change while it runs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from clara_mlx.context import Budget
from clara_mlx.errors import ClaraError
from clara_mlx.serve.reasoner_cache import KnownBy

# Bytes of the largest request of other kinds: questions and filters.
_SMALL_BODY_BYTES = 1 << 20

# Paths by which texts come to be remembered.
_TEXT_PATHS = frozenset(("/v1/memory/remember", "/mcp"))
# The beginnings of paths to which conversations are sent.
_CONVERSATION_PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/responses")

#: The namespace of clients that have none of their own.
DEFAULT = ""

# A namespace's name is part of its file's name.
_NAMESPACE = re.compile("[a-z0-9_-]{1,32}")

#: When the reasoner is offered the memory's tools: if the client gave it tools or something was
#: compacted ("auto"), in every request, or never.
Offer = Literal["auto", "always", "never"]


#: The APIs that an endpoint may speak, see `serve.reasoner_apis`.
RemoteApi = Literal["chat", "messages", "responses"]


@dataclass(frozen=True)
class Remote:
    """An endpoint that answers."""

    url: str  # the base URL; ``/v1`` is added if it has no path
    # The model's name there; ``mlx_lm.server`` calls the one it has loaded ``default_model``.
    model: str = "default_model"
    key: str | None = field(default=None, repr=False)  # for the header that the API has for it
    timeout: float = 900.0  # the most seconds between two pieces, or until a whole answer
    # Whether it heeds ``response_format``, ``tool_choice`` and ``parallel_tool_calls``, which
    # ``mlx_lm.server`` ignores.
    obeys: bool = False
    images: bool = False  # whether it reads images
    api: RemoteApi = "chat"  # what it speaks
    # Whether it wants to be sent earlier reasoning, as DeepSeek's API does; others refuse that. It
    # is sent to a reasoner always, and to a fallback also once it has answered with reasoning.
    wants_reasoning: bool = False

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port or an address that can't be
            is_url = False
        if not is_url:
            raise ClaraError(
                f"{self.url!r} is not the URL of a server, such as http://127.0.0.1:8080/v1"
            )
        if self.api not in get_args(RemoteApi):
            known = ", ".join(get_args(RemoteApi))
            raise ClaraError(f"an API that is asked speaks one of {known}; {self.api!r} is none")

    @property
    def base(self) -> str:
        """The URL that paths are appended to."""
        parts = urlsplit(self.url)
        return self.url.rstrip("/") if parts.path.strip("/") else self.url.rstrip("/") + "/v1"


@dataclass(frozen=True)
class Settings:
    """Everything that `create_app` needs besides a memory."""

    reasoner: Remote  # the model behind the gateway
    fallback: Remote | None = None  # the model that answers when the reasoner can't
    name: str = "reasoner"  # the model's name for clients
    budget: Budget = field(default_factory=Budget)  # the reasoner's window, and when to compact
    cache_known_by: KnownBy = "assumed"  # how it is known what the budget says of the cache
    offer: Offer = "auto"  # when the memory's tools are offered
    everything: bool = False  # whether `ask_memory` searches all memories, not one conversation's
    bring_back: bool = True  # whether compacted text that a user's new message needs is added to it
    # Whether long texts of conversations are remembered as they come, so that they are compressed
    # before they are needed.
    observe: bool = True
    edit: bool = False  # whether memories can be deleted on the inspector's pages
    mask: bool = False  # whether secrets are masked in what is sent to any other machine
    rounds: int = 4  # the most rounds of one answer in which memory calls are answered
    host: str = "127.0.0.1"  # to listen on; any other than a loopback address needs a token
    port: int = 8100  # to listen on; 0 chooses a free one
    token: str | None = field(default=None, repr=False)  # the bearer token that clients must send
    # By name, the tokens of clients that share no memory with any others.
    namespaces: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_hosts: tuple[str, ...] = ()  # names, besides loopback's, that requests may be sent to
    max_body_bytes: int = 32 << 20  # of the largest chat request
    # Of a chat request; larger ones are prepared in a process of their own, so that others don't
    # wait. The conversation that just fits a window of 32,768 tokens has about as many.
    heavy_bytes: int = 128 << 10
    max_text_bytes: int = 8 << 20  # of the largest request that brings a text to remember
    connections: int = 1024  # the most that are open; fewer if the system allows few open files
    header_seconds: float = 15.0  # until a connection's first, or next, request has its headers
    body_seconds: float = 60.0  # the most that the body of a request may take to arrive
    keepalive: float = 10.0  # seconds of silence after which a stream gets a comment
    patience: float = 5.0  # seconds after which a stream starts although it may still fail
    # Seconds that an answer continues after its client has left; the result is kept for the same
    # time, in case of a retry.
    linger: float = 300.0
    failures: int = 3  # failures of the reasoner in a row after which it is left alone
    pause: float = 30.0  # seconds until it is then tried again
    drain: float = 30.0  # the most seconds to finish answers when the gateway stops

    def body_limit(self, path: str) -> int:
        """The bytes of the largest request to a path."""
        if path.startswith(_CONVERSATION_PATHS):
            return self.max_body_bytes
        other = self.max_text_bytes if path in _TEXT_PATHS else _SMALL_BODY_BYTES
        return min(other, self.max_body_bytes)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.tokens:
            raise ClaraError(
                f"{self.host} can be reached from other machines: set CLARA_MLX_TOKEN to the "
                "bearer token that clients must send, or listen on 127.0.0.1"
            )
        for name, token in self.tokens.items():
            what = f"the token of {name}" if name else "CLARA_MLX_TOKEN"
            if name and not _NAMESPACE.fullmatch(name):
                raise ClaraError(
                    f"{name!r} can't name a namespace: use 1 to 32 of the characters a-z, 0-9, _, -"
                )
            if len(token) < 16:
                raise ClaraError(f"{what} is too short to be a secret: use at least 16 characters")
        if len(set(self.tokens.values())) < len(self.tokens):
            raise ClaraError("two namespaces have the same token: each needs its own")

    @property
    def tokens(self) -> dict[str, str]:
        """The tokens by namespace; empty if clients need none."""
        return {**({DEFAULT: self.token} if self.token is not None else {}), **self.namespaces}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
