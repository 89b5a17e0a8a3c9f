"""How a conversation is compacted: attempts from mild to hard, and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clara_mlx.context.budget import Budget, Cache, ContextOverflow, Exchange
from clara_mlx.context.compaction import Compaction
from clara_mlx.context.counting import Count, Counter, count_prompt, message_tokens
from clara_mlx.context.fold_form import FORMS
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import Message
from clara_mlx.context.view import View

logger = logging.getLogger(__name__)

# A fold may take this share of the limit.
_FOLD_SHARE = 0.25

# A fold shows less than blocks in place do, and what is in use goes, too. So it must be cheaper by
# this factor.
_PRICE_OF_FOLD = 1.5

# Characters per token of a fold, about.
_FOLD_CHARACTERS_PER_TOKEN = 3

# If nothing else fits, each of the newest results may take this part of the limit: an eighth.
_EXCERPT_PART = 8

# As a last resort, it may take only a sixty-fourth.
_SHORT_EXCERPT_PART = 64

#: Estimates the tokens of one message.
CountMessage = Callable[[Message], int]


@dataclass(frozen=True)
class Attempt:
    """A way to shorten a conversation, tried but not saved.

    Attributes:
        name: What was done, in words for the log.
        compaction: The edits.
        exchange: What they give and cost.
        refused: Whether the reasoner's template refuses the messages.
    """

    name: str
    compaction: Compaction
    exchange: Exchange
    refused: bool


@dataclass(frozen=True)
class Strategy:
    """Chooses how one view is compacted.

    Attributes:
        view: The conversation; it is not changed.
        freezer: Makes the blocks.
        counter: Counts tokens.
        budget: What the reasoner can take.
        tools: The tools that are sent with it; they count.
        count: The size of the prompt as it is. If the template refuses it, it will refuse whatever
            is done.
        target: Tokens that the prompt should shrink to.
        known_cached: Tokens of the prompt that the server is known to hold; None: it is taken to
            hold everything up to its last answer.
        in_place: Whether to do without folds if that is enough.
    """

    view: View
    freezer: Freezer
    counter: Counter
    budget: Budget
    tools: Sequence[Any] | None
    count: Count
    target: int
    known_cached: int | None = None
    in_place: bool = False

    def choose(self) -> Attempt | None:
        """The first attempt that is worth its price; None if there is none and the prompt fits.

        Raises:
            ContextOverflow: The conversation exceeds the budget even after the last attempt.
        """
        if self.in_place and self.budget.fold:
            with suppress(ContextOverflow):
                return replace(self, budget=replace(self.budget, fold=False)).choose()
        attempt = None
        for attempt in self._attempts():
            if self._is_worth_it(attempt):
                return attempt
        if attempt and self._overflows:
            smallest = self.count.tokens if attempt.refused else attempt.exchange.after
            raise ContextOverflow(smallest, self.budget.limit)
        return None

    def _is_worth_it(self, attempt: Attempt) -> bool:
        """Whether an attempt pays; if the prompt overflows, anything that makes it fit does."""
        exchange = attempt.exchange
        if attempt.refused and not self.count.refused:
            return False
        enough = self._overflows or exchange.frees_enough(self.budget.least)
        return enough and exchange.after <= self.budget.limit

    def _attempts(self) -> Iterator[Attempt]:
        """Ways to shorten the conversation, from mild to hard; each builds on the one before."""
        budget = self.budget
        tried = Compaction(self.view, self.freezer, self.counter)
        in_place = next(filter(self._is_worth_it, self._attempts_in_place(tried)), None)
        rivals = [(1.0, in_place)] if in_place else []
        if budget.fold:
            rivals += [(_PRICE_OF_FOLD, folded) for folded in self._folds(tried)]
        full = int(budget.trigger * budget.limit)
        rivals.sort(key=lambda rival: rival[0] * rival[1].exchange.price(full))
        yield from (attempt for _, attempt in rivals)
        tried.replace_with_blocks(budget.keep, in_use=True, again=True)
        yield self._measure("shorter blocks for excerpts, too", tried)
        if self._overflows:
            yield from self._last_attempts(tried)

    def _attempts_in_place(self, tried: Compaction) -> Iterator[Attempt]:
        """Blocks for old texts: the more of them follow the first change, the more it is worth."""
        keep = self.budget.keep
        tried.replace_with_blocks(keep, self.count.tokens - self.target)
        yield self._measure("old texts as blocks, down to the target", tried.copy())
        tried.replace_with_blocks(keep)
        yield self._measure("all old texts as blocks", tried.copy())
        tried.replace_with_blocks(keep, in_use=True)
        yield self._measure("blocks for what is in use, too", tried)

    def _folds(self, blocks: Compaction) -> Iterator[Attempt]:
        """One fold for all old messages, or one that comes after the earlier folds, if there are.

        Earlier folds stay only if the target is reached; if not, the next fold would come too soon.
        """
        target = int(self.budget.target * self.budget.limit)
        ways = [("one fold for all", True), ("a fold after the earlier ones", False)]
        for name, whole in ways if blocks.view.folds else ways[:1]:
            attempt = self._fold(name, blocks, self.budget.keep, whole=whole)
            if attempt and (whole or attempt.exchange.after <= target):
                yield attempt

    def _fold(
        self, name: str, blocks: Compaction, keep: int, *, whole: bool = True
    ) -> Attempt | None:
        """A fold in the form that suits the roles, or in another one if the template refuses it."""
        attempt = None
        for form in (None, *FORMS):
            folded = blocks.copy()
            if not folded.fold(keep, self._fold_characters, whole=whole, form=form):
                break
            attempt = self._measure(name, folded)
            if self.count.refused or not attempt.refused:
                break
        return attempt

    def _last_attempts(self, tried: Compaction) -> Iterator[Attempt]:
        """What is left to do if the conversation would not fit: only the newest unit is kept."""
        limit = self.budget.limit
        tried.replace_with_blocks(1, in_use=True, again=True)
        yield self._measure("blocks before the newest unit", tried)
        folded = tried
        if self.budget.fold and (attempt := self._fold("a fold before the newest unit", tried, 1)):
            folded = attempt.compaction
            yield attempt
        for name, start, part in (
            ("blocks, and excerpts of the newest results", tried, _EXCERPT_PART),
            ("a fold, and excerpts of the newest results", folded, _EXCERPT_PART),
            ("a fold, and short excerpts of the newest results", folded, _SHORT_EXCERPT_PART),
        ):
            shorter = start.copy()
            shorter.replace_with_excerpts(limit // part, calls=True)
            yield self._measure(name, shorter)

    @cached_property
    def cached(self) -> int:
        """Tokens of the prompt that the server holds."""
        tokens = self.count.tokens
        if self.known_cached is None:
            return cached_tokens(self.view.render(), tokens, self._count_message)
        return min(self.known_cached, tokens)

    def _count_message(self, message: Message) -> int:
        return message_tokens(message, self.counter.text)

    @property
    def _overflows(self) -> bool:
        return self.count.tokens > self.budget.limit

    @property
    def _fold_characters(self) -> int:
        return fold_characters(self.budget)

    def _measure(self, name: str, compaction: Compaction) -> Attempt:
        """Measure what the edits so far give and cost."""
        new = compaction.view.render()
        count = count_prompt(self.counter, new, self.tools)
        exchange = exchange_of(
            self.view.render(),
            new,
            self.count.tokens,
            count.tokens,
            self.cached,
            self._count_message,
            self.budget.cache,
        )
        logger.debug(
            "%s: %s: %d tokens become %d; %d are read",
            self.view.session,
            name,
            exchange.before,
            exchange.after,
            exchange.read,
        )
        return Attempt(name, compaction, exchange, count.refused)


def fold_characters(budget: Budget) -> int:
    """Characters that a fold may have within a budget, about."""
    return int(_FOLD_SHARE * _FOLD_CHARACTERS_PER_TOKEN * budget.limit)


def exchange_of(
    old: Sequence[Message],
    new: Sequence[Message],
    before: int,
    after: int,
    cached: int,
    count: CountMessage,
    cache: Cache = "trimmable",
) -> Exchange:
    """What it gives and costs to send other messages.

    Args:
        old: The messages that would be sent.
        new: The messages to send in their place.
        before: Tokens of the prompt with ``old``.
        after: Tokens of the prompt with ``new``.
        cached: Tokens of ``old`` that the server holds.
        count: Estimates the tokens of a message.
        cache: What the server keeps of a prompt that changes.
    """
    same = next(
        (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b),
        min(len(old), len(new)),
    )
    if cache == "whole" and same < len(old):
        return Exchange(before, after, cached, kept=0)
    changed = sum(map(count, old[same:]))
    return Exchange(before, after, cached, max(0, before - changed))


def cached_tokens(messages: Sequence[Message], tokens: int, count: CountMessage) -> int:
    """Tokens that the server holds if nothing went wrong: all up to its last answer.

    Args:
        messages: The messages that were sent, and what came since.
        tokens: Tokens of the prompt with all of them.
        count: Estimates the tokens of a message.
    """
    fresh = 0
    for message in reversed(messages):
        if message.get("role") == "assistant":
            return max(0, tokens - fresh)
        fresh += count(message)
    return 0
