"""How much a conversation may hold, when it is compacted, and when that is not worth it."""

from __future__ import annotations

from dataclasses import dataclass

from clara_mlx.errors import ClaraError


class ContextOverflow(ClaraError):
    """The instructions, the task and the newest turn alone exceed the budget; nothing was cut.

    Attributes:
        tokens: what the smallest form of the conversation needs.
        limit: what there is.
    """

    def __init__(self, tokens: int, limit: int) -> None:
        self.tokens, self.limit = tokens, limit
        super().__init__(
            f"the instructions and the newest turn need {tokens} tokens, but the budget is "
            f"{limit}; shorten them, or raise the window"
        )


@dataclass(frozen=True)
class Budget:
    """What a reasoner can take, in tokens, and how compaction keeps within it.

    Attributes:
        window: tokens the reasoner can see, its answer included.
        reserve: kept free for the answer.
        trigger: share of `limit` at which old turns are compacted.
        target: share of `limit` that a compaction goes down to, if it can.
        keep: the newest units (a message, or a call with all its results) that stay verbatim.
        least: share of the prompt that a compaction must free, or it is not done.
        boundary: a new tool result longer than this is sent as an excerpt from the start, so that
            the rest is never prefilled; None: new results are sent whole.
        note: most tokens of what is brought back to one message.
        fold: when blocks fill the window, send the oldest messages as one; else only blocks are
            used, in place.
    """

    window: int = 32_768
    reserve: int = 4_096
    trigger: float = 0.7
    target: float = 0.4
    keep: int = 3
    least: float = 0.1
    boundary: int | None = None
    note: int = 800
    fold: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.reserve < self.window:
            raise ClaraError(f"a window of {self.window} leaves no room beside {self.reserve}")
        if not 0 < self.target < self.trigger <= 1:
            raise ClaraError(
                f"target {self.target} and trigger {self.trigger} must be 0 < target < trigger <= 1"
            )
        if self.keep < 1 or not 0 < self.least < 1:
            raise ClaraError("keep must be at least 1, and least between 0 and 1")

    @property
    def limit(self) -> int:
        """Tokens of the largest prompt."""
        return self.window - self.reserve

    @property
    def deep(self) -> int:
        """Tokens above which a compaction is no deep one: half way from target to trigger."""
        return int((self.target + self.trigger) / 2 * self.limit)


@dataclass(frozen=True)
class Exchange:
    """What a compaction gives and costs; all figures are tokens of the rendered prompt.

    A server that keeps the prompt of the last request prefills only what follows the first change.

    Attributes:
        before: the prompt without the compaction.
        after: with it.
        cached: how much of ``before`` the server holds, from its start.
        kept: how much of ``before`` precedes the first change.
    """

    before: int
    after: int
    cached: int
    kept: int

    @property
    def saved(self) -> int:
        """Tokens that no later prefill has to read, and that become free."""
        return self.before - self.after

    @property
    def read(self) -> int:
        """Tokens that this request prefills."""
        return self.after - min(self.kept, self.cached)

    @property
    def lost(self) -> int:
        """Tokens the server holds and must read again for it.

        This request prefills `read` instead of ``before - cached``.
        """
        return self.read - (self.before - self.cached)

    def price(self, full: int) -> float:
        """Tokens read for each that can be appended before the prompt is ``full`` again."""
        return self.read / max(1, full - self.after)

    @property
    def is_worth_it(self) -> bool:
        """Never worse: ``saved > lost``, that is ``2 * saved > cached - min(kept, cached)``.

        Each token that is read again is paid for by a token that is removed for good, and each was
        appended once. So over a whole conversation, however long, what compaction makes the server
        read again stays below what was appended; a window that slides at each turn has no bound.
        """
        return self.saved > self.lost
