"""Context: a conversation and a token budget -> the messages a reasoner gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clara_mlx.context.budget import Budget, ContextOverflow, Exchange
from clara_mlx.context.compaction import Compaction
from clara_mlx.context.counting import Counter, Estimate, message_tokens, rough
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import Message, is_instruction
from clara_mlx.context.recall import bring_back
from clara_mlx.context.view import NOTE, View, rebuilt, session_of
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory

#: When to compact: by the budget's trigger; at a phase boundary or on demand, whatever the
#: utilisation; or only if the conversation would not fit.
When = Literal["auto", "phase", "now", "never"]

# Below this share of the trigger the sum of the messages' tokens is near enough.
_FAR = 0.8

# The characters of a fold: a share of the limit, at about three a token.
_FOLD_SHARE = 0.1
_FOLD_CHARACTERS = 3

# What a compaction gives and costs, and whether it is good enough to be done.
_ExchangeOf = Callable[[Compaction], tuple[Exchange, bool]]


@dataclass(frozen=True)
class Prepared:
    """What to send, and what was done for it.

    Attributes:
        messages: for the reasoner.
        tokens: of the prompt with its tools.
        exact: whether ``tokens`` is the reasoner's own count; else the sum of its parts or an
            estimate.
        original_tokens: about the tokens of the prompt without any edit.
        session: the conversation's name.
        exchange: what the compaction of this request gave and cost; None without one.
        compacted: handles of what became a block (or an excerpt, or a fold) in this request.
        note: what was brought back to the newest message, now or when it was first sent.
        reason: why there was a compaction, or none, in a few words.
    """

    messages: list[Message]
    tokens: int
    exact: bool
    original_tokens: int
    session: str
    exchange: Exchange | None
    compacted: tuple[str, ...]
    note: str | None
    reason: str


class Context:
    """Makes conversations fit, and remembers in the memory's file how it did.

    What was decided for a conversation is found again by its content, also by another process or
    after a restart. Safe to use from several threads.

    Args:
        memory: keeps the originals, the blocks and the edits; needs no model.
        counter: counts tokens; an estimate without one (see `ChatTemplate`).
        budget: what the reasoner can take.
    """

    def __init__(
        self, memory: Memory, counter: Counter | None = None, budget: Budget | None = None
    ) -> None:
        self.memory = memory
        self.counter: Counter = counter or Estimate()
        self.budget = budget or Budget()
        self.freezer = Freezer(memory)

    def prepare(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        session: str | None = None,
        compact: When = "auto",
        question: str | None = None,
        cached: int | None = None,
    ) -> Prepared:
        """The messages to send for a conversation; the given ones are not changed.

        Args:
            messages: the whole conversation as the client has it, in OpenAI's form.
            tools: that are sent with it; they count.
            session: the conversation's name; else its first message names it.
            compact: when to compact; see `When`.
            question: what the newest message needs of what is no longer shown.
            cached: tokens the server is known to hold of this prompt (0: none). Without it, all
                but what came after its last answer.

        Raises:
            ContextOverflow: even the smallest form exceeds the budget.
        """
        given = [dict(message) for message in messages]
        view = self._view(given, session or session_of(given))
        before = view
        if self.budget.boundary is not None:
            view = self._with_excerpts(view, self.budget.boundary)
        tokens, exact = self._count(view, tools, near=compact in ("phase", "now"))
        exchange, reason = None, "below the trigger"
        if compact == "never" and tokens <= self.budget.limit:
            reason = "not asked for"
        elif compact in ("phase", "now") or tokens > self.budget.trigger * self.budget.limit:
            tokens, exact = self._exactly(view, tools)
            compacted, exchange, reason = self._compacted(view, tokens, tools, compact, cached)
            if compacted is not view:
                view = compacted
                tokens, exact = self._exactly(view, tools)
        if question and given and given[-1].get("role") in ("user", "tool"):
            view, tokens, exact = self._with_note(view, question, tools, tokens, exact)
        note = view.edits.get(len(given) - 1, {}).get(NOTE)
        known = set(before.all_edits())
        return Prepared(
            messages=view.rendered(),
            tokens=tokens,
            exact=exact,
            original_tokens=rough(given, tools, self.counter.text),
            session=view.session,
            exchange=exchange,
            compacted=tuple(
                edit.block.handle
                for edit in view.all_edits()
                if edit not in known and edit.block.handle
            ),
            note=note.block.text or None if note else None,
            reason=reason,
        )

    def observe(
        self, messages: Sequence[Mapping[str, Any]], session: str | None = None
    ) -> list[str]:
        """Remember the long texts of a conversation now, so that they are compressed when needed.

        Returns the handles. Nothing that the memory itself gave is remembered.
        """
        given = [dict(message) for message in messages]
        view = self._view(given, session or session_of(given))
        handles = [
            self.freezer.observe(view.session, piece)
            for index, message in enumerate(given)
            if not is_instruction(message)
            for piece in view.pieces(index)
        ]
        return list(dict.fromkeys(handle for handle in handles if handle))

    def rebuild(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The full history behind messages that `prepare` gave; needs nothing but the memory.

        Raises:
            StoreError: an original was forgotten, or is damaged.
        """
        return rebuilt([dict(message) for message in messages], self.freezer)

    def undo(self, messages: Sequence[Mapping[str, Any]], session: str | None = None) -> int:
        """Send a conversation as it came from now on; returns how many edits were undone."""
        given = [dict(message) for message in messages]
        return self.freezer.table.drop(View(given, session or session_of(given)).chains)

    # -- steps -----------------------------------------------------------------------------------

    def _view(self, messages: list[Message], session: str) -> View:
        view = View(messages, session)
        edits = self.freezer.table.edits(view.chains)
        view.add(edit for edit in edits if self.freezer.redeemable(edit.block))
        return view

    def _with_excerpts(self, view: View, boundary: int) -> View:
        compaction = Compaction(view, self.freezer, self.counter)
        if not compaction.excerpts(boundary):
            return view
        compaction.commit()
        return compaction.view

    def _compacted(
        self, view: View, tokens: int, tools: Sequence[Any] | None, when: When, cached: int | None
    ) -> tuple[View, Exchange | None, str]:
        budget = self.budget
        overflows = tokens > budget.limit
        target = 0 if when in ("phase", "now") else int(budget.target * budget.limit)
        held = self._held(view, tokens) if cached is None else min(cached, tokens)

        def exchange_of(compaction: Compaction) -> tuple[Exchange, bool]:
            exchange = self._exchange(view, compaction.view, tokens, tools, held)
            worth = exchange.is_worth_it and exchange.saved >= budget.least * tokens
            return exchange, exchange.after <= budget.limit and (worth or overflows)

        tried = Compaction(view, self.freezer, self.counter)
        tried.blocks(budget.keep, tokens - target)
        exchange, good = exchange_of(tried)
        for in_use in (False, True):
            if not good:  # the more is compacted behind the first change, the more it is worth
                tried.blocks(budget.keep, in_use=in_use)
                exchange, good = exchange_of(tried)
        in_place = good and exchange.after <= budget.deep and budget.boundary is None
        if budget.fold and not in_place:
            # Mostly blocks or excerpts by now: they would be back at the trigger in no time.
            tried, exchange, good = self._folded(tried, exchange, good, exchange_of)
        if not good:
            tried.blocks(budget.keep, in_use=True, again=True)
            exchange, good = exchange_of(tried)
        if not good and not overflows:
            return view, None, "not worth it"
        if not good:
            tried = self._fitting(tried, tools)
            exchange, _ = exchange_of(tried)
        tried.commit()
        return tried.view, exchange, "would not fit" if overflows else f"compacted ({when})"

    def _folded(
        self, tried: Compaction, exchange: Exchange, good: bool, exchange_of: _ExchangeOf
    ) -> tuple[Compaction, Exchange, bool]:
        """The cheapest of three: as it is, with one fold for all, with one after earlier ones.

        Earlier folds stay only where the target is reached: else the next one would come too soon.
        """
        blocks, budget = tried, self.budget
        full, target = int(budget.trigger * budget.limit), int(budget.target * budget.limit)
        for whole in (True, False):
            folded = blocks.copy()
            if not folded.fold(budget.keep, self._fold_characters, whole=whole):
                continue
            by_fold, good_fold = exchange_of(folded)
            deep = whole or by_fold.after <= target
            if good_fold and deep and (not good or by_fold.price(full) < exchange.price(full)):
                tried, exchange, good = folded, by_fold, True
        return tried, exchange, good

    def _fitting(self, tried: Compaction, tools: Sequence[Any] | None) -> Compaction:
        """The first of ever harder steps after which the conversation fits."""
        needed = 0
        for step in self._harder(tried):
            needed, _ = self._exactly(step.view, tools)
            if needed <= self.budget.limit:
                return step
        raise ContextOverflow(needed, self.budget.limit)

    def _harder(self, tried: Compaction) -> Iterator[Compaction]:
        """Blocks before the newest unit; a fold; excerpts of its results; both; shorter ones."""
        tried.blocks(1, in_use=True, again=True)
        yield tried
        folded = tried.copy()
        if self.budget.fold and folded.fold(1, self._fold_characters):
            yield folded
        for whole, share in ((tried, 8), (folded, 8), (folded, 64)):
            step = whole.copy()
            step.excerpts(self.budget.limit // share)
            yield step

    @property
    def _fold_characters(self) -> int:
        return int(_FOLD_SHARE * _FOLD_CHARACTERS * self.budget.limit)

    def _with_note(
        self, view: View, question: str, tools: Sequence[Any] | None, tokens: int, exact: bool
    ) -> tuple[View, int, bool]:
        last = len(view.messages) - 1
        if NOTE in view.edits.get(last, {}) or not view.all_edits():
            return view, tokens, exact
        edit = bring_back(view, question, self.freezer, self.counter, self.budget.note)
        noted = view.copy()
        noted.add([edit])
        then, exact_then = self._count(noted, tools)
        if then > self.budget.limit:
            return view, tokens, exact
        self.freezer.table.edit([edit])
        return noted, then, exact_then

    # -- counting --------------------------------------------------------------------------------

    def _count(
        self, view: View, tools: Sequence[Any] | None, *, near: bool = False
    ) -> tuple[int, bool]:
        """Tokens of what is sent; exact near the trigger or the limit."""
        tokens = rough(view.rendered(), tools, self.counter.text)
        if near or tokens > _FAR * self.budget.trigger * self.budget.limit:
            return self._exactly(view, tools)
        return tokens, False

    def _exactly(self, view: View, tools: Sequence[Any] | None) -> tuple[int, bool]:
        messages = view.rendered()
        try:
            return self.counter.prompt(messages, tools), self.counter.exact
        except ClaraError:  # a template that refuses these messages; the server will say so
            return rough(messages, tools, self.counter.text), False

    def _held(self, view: View, tokens: int) -> int:
        """What the server holds if nothing went wrong: all but what came after its last answer."""
        fresh = 0
        for message in reversed(view.rendered()):
            if message.get("role") == "assistant":
                return max(0, tokens - fresh)
            fresh += message_tokens(message, self.counter.text)
        return 0

    def _exchange(
        self, old: View, new: View, before: int, tools: Sequence[Any] | None, cached: int
    ) -> Exchange:
        then, now = old.rendered(), new.rendered()
        same = next(
            (i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b),
            min(len(then), len(now)),
        )
        changed = sum(message_tokens(message, self.counter.text) for message in then[same:])
        after, _ = self._exactly(new, tools)
        return Exchange(before, after, cached, max(0, before - changed))
