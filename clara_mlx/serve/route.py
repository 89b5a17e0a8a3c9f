"""Which of two endpoints answers: the reasoner, or what stands in for it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from clara_mlx.serve.errors import ApiError, Overflow, Reason, Unavailable
from clara_mlx.serve.sse import Comment
from clara_mlx.serve.upstream import Endpoint, Object

logger = logging.getLogger(__name__)

By = Literal["reasoner", "fallback"]


class Breaker:
    """Leaves an endpoint alone for a while that failed several times in a row.

    After the pause one request tries it; whether that succeeds decides about the others.
    """

    def __init__(
        self, failures: int, pause: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._pause, self._clock = failures, pause, clock
        self._failures = 0
        self._until = 0.0
        self._trying = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """Closed: requests go through."""
        if self._failures < self._most:
            return "closed"
        return "half-open" if self._trying or self._clock() >= self._until else "open"

    def lets_pass(self) -> bool:
        """Whether this request may try; ask once a request, and report how it went."""
        if self.state == "closed":
            return True
        if self._trying or self._clock() < self._until:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        """The endpoint answered."""
        self._failures, self._trying = 0, False

    def failed(self) -> None:
        """It could not."""
        self._failures, self._trying = self._failures + 1, False
        self._until = self._clock() + self._pause

    def undecided(self) -> None:
        """The request ended before it was known."""
        self._trying = False


@dataclass
class Route:
    """Where one answer comes from; all its rounds come from there.

    Attributes:
        by: who answers.
        reason: why that is the fallback.
        committed: the client has seen a part of the answer, so nobody else can go on with it.
    """

    by: By = "reasoner"
    reason: Reason | None = None
    committed: bool = False


@dataclass(frozen=True)
class Switched:
    """In a stream: what came before is void, the fallback starts anew."""


def _both(route: Route, error: Unavailable) -> ApiError:
    reason = f"{error}; it was asked because of the reasoner ({route.reason})"
    return Unavailable(error.reason, reason).told()


#: What to send to an endpoint.
Payload = Callable[[By], Object]


class Router:
    """Asks the reasoner, and the fallback when the reasoner can't answer.

    Args:
        reasoner: asked first.
        fallback: None: errors are passed on.
        breaker: of the reasoner.
        switched: called with the reason each time that the fallback takes over.
    """

    def __init__(
        self,
        reasoner: Endpoint,
        fallback: Endpoint | None,
        breaker: Breaker,
        switched: Callable[[Reason], None] = lambda reason: None,
    ) -> None:
        self.reasoner, self.fallback, self.breaker = reasoner, fallback, breaker
        self._switched = switched

    async def close(self) -> None:
        """Close the connections of both."""
        await self.reasoner.close()
        if self.fallback:
            await self.fallback.close()

    def switch(self, route: Route, reason: Reason, why: str) -> None:
        """Let the fallback answer from now on."""
        route.by, route.reason = "fallback", reason
        logger.warning("the fallback answers (%s): %s", reason, why)
        self._switched(reason)

    async def complete(self, route: Route, payload: Payload) -> Object:
        """A chat completion from whom the route leads to.

        Raises:
            ApiError: nobody could give one.
        """
        if self._tries_reasoner(route):
            try:
                answer = await self.reasoner.complete(payload("reasoner"))
            except (Unavailable, ApiError) as error:
                self._failed(route, error)
            except BaseException:
                self.breaker.undecided()
                raise
            else:
                self.breaker.succeeded()
                return answer
        try:
            assert self.fallback is not None
            return await self.fallback.complete(payload("fallback"))
        except Unavailable as error:
            raise _both(route, error) from error

    async def stream(
        self, route: Route, payload: Payload
    ) -> AsyncGenerator[Object | Comment | Switched]:
        """The chunks of a chat completion from whom the route leads to.

        Raises:
            ApiError: nobody could give one, or it broke off after the client had seen a part.
        """
        if self._tries_reasoner(route):
            try:
                async with aclosing(self.reasoner.stream(payload("reasoner"))) as events:
                    async for event in events:
                        yield event
            except (Unavailable, ApiError) as error:
                self._failed(route, error)
                yield Switched()
            except BaseException:
                self.breaker.undecided()
                raise
            else:
                self.breaker.succeeded()
                return
        try:
            assert self.fallback is not None
            async with aclosing(self.fallback.stream(payload("fallback"))) as events:
                async for event in events:
                    yield event
        except Unavailable as error:
            raise _both(route, error) from error

    def _tries_reasoner(self, route: Route) -> bool:
        if route.by == "fallback":
            return False
        if not self.breaker.lets_pass() and self.fallback and not route.committed:
            self.switch(route, "breaker", "the reasoner failed several times in a row")
            return False
        return True

    def _failed(self, route: Route, error: Unavailable | ApiError) -> None:
        """Turn to the fallback, or raise what the client is to know."""
        unavailable = isinstance(error, Unavailable)
        if unavailable:
            self.breaker.failed()
        else:
            self.breaker.succeeded()  # it is there, and said no
        told = error.told() if isinstance(error, Unavailable) else error
        others_may = unavailable or isinstance(error, Overflow)
        if self.fallback is None or route.committed or not others_may:
            raise told from error
        self.switch(
            route, error.reason if isinstance(error, Unavailable) else "overflow", str(error)
        )
