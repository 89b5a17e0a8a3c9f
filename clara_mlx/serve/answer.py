"""One answer in the making: what belongs together until its client has it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from clara_mlx.context.messages import Message
from clara_mlx.serve.apis import Writer
from clara_mlx.serve.desk import Desk
from clara_mlx.serve.figures import Conversation, PromptParts
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.request import ChatRequest
from clara_mlx.serve.route import Route
from clara_mlx.serve.runs import Run
from clara_mlx.serve.sight import Sight
from clara_mlx.store.ledger import Round

logger = logging.getLogger(__name__)

# What the reasoner reads in place of results that would not fit.
_TOO_LONG = "This does not fit beside the conversation. Ask for fewer lines, or with find."


@dataclass
class Answer:
    """One answer in the making."""

    desk: Desk  # where the conversation lies
    run: Run  # where headers and keep-alives go
    writer: Writer  # writes the answer in the client's form
    conversation: Conversation  # the conversation's figures
    begun: float  # when the request arrived, by `time.perf_counter`
    sight: Sight | None = None  # what the conversation may see of the memory; None: not looked yet
    hidden: list[Message] = field(default_factory=list)  # the hidden rounds of this answer so far
    new_results: int = 0  # messages at the end of ``hidden`` that are results of the newest calls
    compacted: list[str] = field(default_factory=list)  # handles of the blocks made for it
    round: Round | None = None  # the newest round, for the ledger; None: it is there already
    sent: PromptParts | None = None  # what the reasoner was sent last; None: that was the fallback
    asked: set[tuple[str, str]] = field(default_factory=set)  # the memory calls that were made
    must_answer: bool = False  # whether the memory's tools are not offered any more
    route: Route = field(default_factory=Route)  # who answers

    @property
    def request(self) -> ChatRequest:
        """The client's request."""
        return self.desk.request

    @property
    def session(self) -> str:
        """The conversation's name."""
        return self.desk.name.text

    def withdraw_results(self) -> bool:
        """Put a short notice in place of the newest results; false if there are none."""
        withdrawn = self.new_results > 0
        for message in self.hidden[len(self.hidden) - self.new_results :]:
            message["content"] = _TOO_LONG
        self.new_results = 0
        return withdrawn

    def describe(self, prompt: Prompt, cached: int) -> None:
        """Set the headers that tell the client what was done with its conversation.

        Args:
            prompt: What the reasoner is sent.
            cached: What its server should have of that, in tokens.
        """
        self.run.headers |= {
            "x-clara-session": self.session,
            "x-clara-tokens-in": str(prompt.tokens_in),
            "x-clara-tokens-sent": str(prompt.tokens),
            "x-clara-tokens-exact": str(prompt.exact).lower(),
            "x-clara-cached-expected": str(cached),
            "x-clara-compacted": str(len(prompt.compacted)),
            "x-clara-memory": "unavailable" if prompt.degraded else "ok",
        }

    def name_who_answers(self) -> None:
        """Set the headers that tell the client who answers, and why."""
        self.run.headers["x-clara-served-by"] = self.route.by
        if self.route.reason:
            self.run.headers["x-clara-fallback-reason"] = self.route.reason

    def log(self) -> None:
        """Log that the answer is complete."""
        figures = self.conversation
        logger.info(
            "%s: the %s answered in %.1f s; tokens of this conversation so far: %d came in, %d "
            "were sent, %d of these were cached (%d expected)",
            self.session,
            self.route.by,
            time.perf_counter() - self.begun,
            figures.tokens_in,
            figures.tokens_sent,
            figures.cached_reported,
            figures.cached_expected,
        )
