"""Which of two endpoints answers: the reasoner, or the fallback in its place."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from clara_mlx.serve.errors import ApiError, Overflow, Reason, Unavailable
from clara_mlx.serve.reply import Object
from clara_mlx.serve.sse import Comment
from clara_mlx.serve.upstream import Endpoint

logger = logging.getLogger(__name__)

#: Who answers.
By = Literal["reasoner", "fallback"]

#: Makes what is sent to an endpoint.
Payload = Callable[[By], Awaitable[Object]]


@dataclass
class Breaker:
    """Leaves an endpoint alone for a while after it failed several times in a row.

    After the pause one request tries it; whether that succeeds decides about the others.
    """

    limit: int  # failures in a row that open the breaker
    pause: float  # seconds until a request may try the endpoint again
    clock: Callable[[], float] = time.monotonic
    _failures: int = 0
    _open_until: float = 0.0
    _trying: bool = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """Closed: requests go through. Half-open: one request tries the endpoint, or may."""
        if self._failures < self.limit:
            return "closed"
        return "half-open" if self._trying or self.clock() >= self._open_until else "open"

    def admit(self) -> bool:
        """Let a request try the endpoint, or not; one that may must record how it went."""
        if self.state == "closed":
            return True
        if self._trying or self.clock() < self._open_until:
            return False
        self._trying = True
        return True

    def record_success(self) -> None:
        """The endpoint answered."""
        self._failures = 0
        self._trying = False

    def record_failure(self) -> None:
        """The endpoint could not answer."""
        self._failures += 1
        self._trying = False
        self._open_until = self.clock() + self.pause

    def record_nothing(self) -> None:
        """The request ended before anybody knew: another one may try."""
        self._trying = False


@dataclass
class Route:
    """Where one answer comes from; all its rounds come from there."""

    by: By = "reasoner"
    reason: Reason | None = None  # why the fallback answers, if it does
    committed: bool = False  # the client has seen a part: no other model can continue the answer


@dataclass(frozen=True)
class Switched:
    """An event: what came before it is void, the fallback starts from the beginning."""


@dataclass(frozen=True)
class Router:
    """Asks the reasoner, and the fallback when the reasoner can't answer."""

    reasoner: Endpoint  # asked first
    fallback: Endpoint | None  # asked instead; without one, errors are passed on
    breaker: Breaker  # decides whether the reasoner is asked
    on_switch: Callable[[Reason], None]  # called with the reason when the fallback takes over

    async def close(self) -> None:
        """Close the connections of both."""
        await self.reasoner.close()
        if self.fallback:
            await self.fallback.close()

    async def ask(
        self, route: Route, payload: Payload
    ) -> AsyncGenerator[Object | Comment | Switched]:
        """What the endpoint that the route leads to answers; see `Endpoint.ask`.

        Raises:
            ApiError: No endpoint could answer, or one broke off after the client had seen a part.
        """
        if self._admits(route):
            try:
                async with aclosing(self.reasoner.ask(await payload("reasoner"))) as events:
                    async for event in events:
                        yield event
            except (Unavailable, ApiError) as error:
                self._switch_or_raise(route, error)
                yield Switched()
            except BaseException:
                self.breaker.record_nothing()
                raise
            else:
                self.breaker.record_success()
                return
        try:
            assert self.fallback is not None
            async with aclosing(self.fallback.ask(await payload("fallback"))) as events:
                async for event in events:
                    yield event
        except Unavailable as error:
            reason = f"it was asked because the reasoner could not answer ({route.reason})"
            raise Unavailable(error.reason, f"{error}; {reason}").as_api_error() from error

    def switch_to_fallback(self, route: Route, reason: Reason, why: str) -> None:
        """Let the fallback answer from now on."""
        route.by = "fallback"
        route.reason = reason
        logger.warning("the fallback answers (%s): %s", reason, why)
        self.on_switch(reason)

    def _admits(self, route: Route) -> bool:
        """Whether the reasoner is asked; switches if the breaker is open."""
        if route.by == "fallback":
            return False
        if not self.breaker.admit() and self.fallback and not route.committed:
            self.switch_to_fallback(route, "breaker", "the reasoner failed several times in a row")
            return False
        return True

    def _switch_or_raise(self, route: Route, error: Unavailable | ApiError) -> None:
        """Switch to the fallback if it may do better, or raise the error for the client."""
        if isinstance(error, Unavailable):
            self.breaker.record_failure()
            reason: Reason | None = error.reason
            api_error = error.as_api_error()
        else:
            self.breaker.record_success()  # the reasoner is there, and said no
            reason = "overflow" if isinstance(error, Overflow) else None
            api_error = error
        if self.fallback is None or route.committed or reason is None:
            raise api_error from error
        self.switch_to_fallback(route, reason, str(error))
