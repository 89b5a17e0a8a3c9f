"""What the gateway is told when it starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from clara_mlx.context import Budget
from clara_mlx.errors import ClaraError

#: When a reasoner is offered the memory's tools: if the client gave it tools, or there is
#: something to bring back; in every request; or never.
Offer = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Remote:
    """An OpenAI-compatible endpoint.

    Attributes:
        url: its base; without a path, ``/v1`` is meant.
        model: the name to send; ``default_model`` is the loaded one of ``mlx_lm.server``.
        key: for the Authorization header; None: none is sent.
        timeout: most seconds between two pieces of an answer; of one that does not stream, in all.
        obeys: it heeds ``response_format``, ``tool_choice`` and ``parallel_tool_calls``, which
            ``mlx_lm.server`` ignores.
        images: it reads images.
    """

    url: str
    model: str = "default_model"
    key: str | None = field(default=None, repr=False)
    timeout: float = 900.0
    obeys: bool = False
    images: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClaraError(f"{self.url!r} is no URL of a server; e.g. http://127.0.0.1:8080/v1")

    @property
    def base(self) -> str:
        """The URL that paths are appended to."""
        parts = urlsplit(self.url)
        return self.url.rstrip("/") if parts.path.strip("/") else self.url.rstrip("/") + "/v1"


@dataclass(frozen=True)
class Settings:
    """Everything that `app.create` needs besides a memory.

    Attributes:
        reasoner: the model behind the gateway.
        fallback: what answers in its place when it can't.
        name: what clients see as the model's name.
        budget: what the reasoner can take.
        offer: when the memory's tools are offered.
        everything: `ask_memory` searches all that is remembered, not this conversation's only.
        bring_back: what a user's new message needs of compacted texts is added to it.
        observe: long texts of conversations are remembered as they come, so that they are
            compressed before they are needed.
        rounds: most times in one answer that the reasoner may call the memory.
        host: where to listen; any other than a loopback address needs a token.
        port: 0 chooses a free one.
        token: what clients must send as a bearer token; None: nothing.
        allow_hosts: names besides loopback's that requests may be addressed to.
        most_body: bytes of the largest request.
        body_seconds: most seconds a request's body may take to arrive.
        keepalive: seconds of silence after which a stream gets a comment.
        patience: seconds before a stream starts without knowing whether it will fail.
        linger: seconds that an answer goes on after its client has left; its result is kept as
            long, for the retry.
        failures: failures in a row after which the fallback answers at once.
        pause: seconds until the reasoner is tried again then.
        drain: most seconds to finish what is under way when the gateway ends.
    """

    reasoner: Remote
    fallback: Remote | None = None
    name: str = "reasoner"
    budget: Budget = field(default_factory=Budget)
    offer: Offer = "auto"
    everything: bool = False
    bring_back: bool = True
    observe: bool = True
    rounds: int = 4
    host: str = "127.0.0.1"
    port: int = 8100
    token: str | None = field(default=None, repr=False)
    allow_hosts: tuple[str, ...] = ()
    most_body: int = 32 << 20
    body_seconds: float = 60.0
    keepalive: float = 10.0
    patience: float = 5.0
    linger: float = 300.0
    failures: int = 3
    pause: float = 30.0
    drain: float = 30.0

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.token:
            raise ClaraError(
                f"{self.host} can be reached from other machines: set CLARA_MLX_TOKEN to what "
                "clients must send as a bearer token, or listen on 127.0.0.1"
            )
        if self.token is not None and len(self.token) < 16:
            raise ClaraError("the bearer token is too short to be a secret; 16 characters or more")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
