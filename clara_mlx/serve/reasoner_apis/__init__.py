"""The APIs that a reasoner may speak: each is written to and read from in the form of chat."""

from __future__ import annotations

from collections.abc import Callable

from clara_mlx.serve.reasoner_apis.api import EventReader, NotAnAnswer, ReasonerApi
from clara_mlx.serve.reasoner_apis.chat import ChatReasoner
from clara_mlx.serve.reasoner_apis.messages import MessagesReasoner
from clara_mlx.serve.reasoner_apis.responses import ResponsesReasoner

__all__ = ["REASONER_APIS", "EventReader", "NotAnAnswer", "ReasonerApi"]

#: What makes each API, by name; one endpoint has one of its own.
REASONER_APIS: dict[str, Callable[[], ReasonerApi]] = {
    "chat": ChatReasoner,
    "messages": MessagesReasoner,
    "responses": ResponsesReasoner,
}
