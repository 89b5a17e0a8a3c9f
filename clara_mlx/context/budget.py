"""How much a conversation may hold, when it is compacted, and when that is not worth it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from clara_mlx.errors import ClaraError

#: What a server still has of a prompt after something in it has changed: all that precedes the
#: change ("trimmable"), or nothing ("whole"). Recurrent states can't be rewound, nor can windows
#: that slide.
Cache = Literal["trimmable", "whole"]

# Characters of a page of `expand`, at least and at most: as many as agents' own tools read.
_LEAST_PAGE = 12_000
_LARGEST_PAGE = 48_000


class ContextOverflow(ClaraError):
    """The instructions, the task and the newest turn alone exceed the budget; nothing was cut.

    Attributes:
        tokens: Tokens that the smallest form of the conversation needs.
        limit: Tokens that the budget allows.
    """

    def __init__(self, tokens: int, limit: int) -> None:
        self.tokens = tokens
        self.limit = limit
        super().__init__(
            f"the instructions and the newest turn need {tokens} tokens, but the budget is "
            f"{limit}; shorten them, or raise the window"
        )


@dataclass(frozen=True)
class Budget:
    """What a reasoner can take, in tokens, and how compaction keeps within it.

    Attributes:
        window: Tokens the reasoner can see, its answer included.
        reserve: Tokens kept free for the answer.
        trigger: Share of `limit` at which old turns are compacted.
        target: Share of `limit` that a compaction goes down to, if it can.
        keep: The number of newest units (a message, or a call with all its results) that are sent
            word for word.
        least: A compaction must free at least this share of the prompt, or it is not done.
        boundary: A new tool result of more tokens than this is sent as an excerpt from the start,
            so that the rest is never prefilled. None: new results are sent whole.
        note: The most tokens that a recall note may have.
        fold: Whether to send the oldest messages as one when blocks fill the window; else blocks
            are all that is used.
        cache: What the reasoner's server keeps of a prompt that changes.
    """

    window: int = 32_768
    reserve: int = 4_096
    trigger: float = 0.95
    target: float = 0.6
    keep: int = 3
    least: float = 0.1
    boundary: int | None = None
    note: int = 800
    fold: bool = True
    cache: Cache = "trimmable"

    def __post_init__(self) -> None:
        if not 0 <= self.reserve < self.window:
            raise ClaraError(
                f"a window of {self.window} tokens leaves no room for a prompt if {self.reserve} "
                "are reserved for the answer; raise the window (--window) or lower the reserve "
                "(--reserve)"
            )
        if not 0 < self.target < self.trigger <= 1:
            raise ClaraError(
                "target and trigger must satisfy 0 < target < trigger <= 1, but they are "
                f"{self.target} and {self.trigger}"
            )
        if self.keep < 1 or not 0 < self.least < 1:
            raise ClaraError(
                f"keep ({self.keep}) must be at least 1, and least ({self.least}) between 0 and 1"
            )

    @property
    def limit(self) -> int:
        """Tokens of the largest prompt."""
        return self.window - self.reserve

    @property
    def page(self) -> int:
        """Characters that a page of an original may have: about a quarter of the largest prompt."""
        return min(max(_LEAST_PAGE, self.limit), _LARGEST_PAGE)  # at four characters a token

    def compacting_above(self, tokens: int | None) -> Budget:
        """The same, but compaction begins at this many tokens if that is earlier.

        The target falls with the trigger, so that one compaction lasts for some time.
        """
        if tokens is None or tokens >= self.trigger * self.limit:
            return self
        trigger = max(1, tokens) / self.limit
        return replace(self, trigger=trigger, target=self.target * trigger / self.trigger)


@dataclass(frozen=True)
class Exchange:
    """What a compaction gives and costs; all figures are tokens of the rendered prompt.

    A server that keeps the prompt of the last request prefills only what follows the first change;
    if its cache is whole, it keeps nothing then, and prefills all.

    Attributes:
        before: The prompt without the compaction.
        after: The prompt with it.
        cached: The part of ``before`` that the server holds, from its start.
        kept: The part of ``before`` that precedes the first change; nothing if the cache is whole.
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
        """Tokens the server holds and must read again because of the compaction.

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

    def frees_enough(self, least: float) -> bool:
        """Whether it is worth it and frees at least this share of the prompt."""
        return self.is_worth_it and self.saved >= least * self.before
