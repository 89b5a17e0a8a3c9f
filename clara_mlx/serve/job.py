"""One answer in the making."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from clara_mlx.context.messages import Message
from clara_mlx.serve.figures import Conversation
from clara_mlx.serve.reply import Object
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.route import Route
from clara_mlx.serve.runs import Run


@dataclass
class Job:
    """One answer in the making.

    Attributes:
        base: the conversation with hidden rounds of earlier answers.
        hidden: the hidden rounds of this one.
        seen: the text that the client has got.
        results: how many of these, at the end, are results of the newest memory calls.
        asked: the memory calls that were made.
        upstream: of the newest answer from an endpoint, what is passed on as it is.
    """

    request: ChatRequest
    session: str
    run: Run
    conversation: Conversation
    base: list[Message]
    begun: float
    route: Route = field(default_factory=Route)
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    hidden: list[Message] = field(default_factory=list)
    results: int = 0
    seen: str = ""
    asked: set[tuple[str, str]] = field(default_factory=set)
    upstream: Object = field(default_factory=dict)
