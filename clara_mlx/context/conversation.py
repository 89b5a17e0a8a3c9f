"""Context: a conversation and a token budget -> the messages a reasoner gets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from clara_mlx.context.acceptance import Acceptance
from clara_mlx.context.budget import Budget, Cache, Exchange
from clara_mlx.context.compaction import Compaction
from clara_mlx.context.counting import (
    Counter,
    Estimate,
    count_prompt,
    message_tokens,
    tokens_of_tools,
)
from clara_mlx.context.drafts import needed_from
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import Message, is_instruction, units
from clara_mlx.context.observed import Observer
from clara_mlx.context.readings import Readings
from clara_mlx.context.rebuild import rebuild_history
from clara_mlx.context.recall import make_note
from clara_mlx.context.recent import Known, Recent
from clara_mlx.context.rounds import HiddenRounds
from clara_mlx.context.shown import keep_sent
from clara_mlx.context.steps import pieces_to_keep
from clara_mlx.context.strategy import Strategy, fold_characters
from clara_mlx.context.summary import Summary, handles_of_folds, summarize
from clara_mlx.context.table import Edit
from clara_mlx.context.undone import Undone
from clara_mlx.context.view import NOTE, View, session_of
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory

#: When to compact: by the budget's trigger; at a phase boundary or on demand, whatever the
#: utilisation; or only if the conversation would not fit.
When = Literal["auto", "phase", "now", "never"]


@dataclass(frozen=True)
class _Found:
    """What was found out about a conversation when it was prepared."""

    view: View  # its edits; never changed any more
    sizes: tuple[int, ...]  # of each message as it came, in tokens, about


# Below this share of the trigger, the sum of the messages' tokens is exact enough.
_EXACT_COUNT_FROM = 0.8


@dataclass(frozen=True)
class Prepared:
    """What to send, and what was done for it.

    Attributes:
        messages: The messages for the reasoner.
        tokens: Tokens of the prompt with its tools.
        exact: Whether ``tokens`` is the reasoner's own count; if not, it is the sum of the parts or
            an estimate.
        original_tokens: Tokens of the prompt without any edit, about.
        session: The conversation's name.
        exchange: What the compaction of this request gave and cost; None without one.
        compacted: Handles of what became a block, an excerpt or a fold in this request.
        note: The recall note of the newest message, added now or when it was first sent.
        reason: Why there was a compaction, or none, in a few words.
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
    """Makes conversations fit, and records the edits that did so in the memory's file.

    What was decided for a conversation is found again by its content, also by another process or
    after a restart. Safe to use from several threads.

    Args:
        memory: The memory that keeps the originals, the blocks and the edits; it needs no model.
        counter: Counts tokens, see `ChatTemplate`; by default they are estimated.
        budget: What the reasoner can take.

    Attributes:
        freezer: Makes the blocks.
        hidden_rounds: Messages that the reasoner knows and the client has never seen.
    """

    def __init__(
        self, memory: Memory, counter: Counter | None = None, budget: Budget | None = None
    ) -> None:
        self.memory = memory
        self.counter: Counter = counter or Estimate()
        self.budget = budget or Budget()
        self.freezer = Freezer(memory)
        self.hidden_rounds = HiddenRounds(self.freezer)
        self._acceptance = Acceptance(self.freezer, self.counter)
        self._undone = Undone(self.freezer.table)
        self._recent: Recent[_Found] = Recent()
        self._observer = Observer(self.freezer)
        self._readings = Readings()

    def keep_in_mind(self, cache: Cache) -> None:
        """Reckon from now on with what the reasoner's server keeps of a prompt that changes."""
        if cache != self.budget.cache:
            self.budget = replace(self.budget, cache=cache)

    def project(self, session: str, messages: Sequence[Message], told: str = "") -> str:
        """The folder that a conversation works in; empty if neither it nor ``told`` says so.

        What is remembered of the conversation from now on belongs to that project.
        """
        return self.freezer.projects.look(session, messages, told)

    def prepare(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        session: str | None = None,
        compact: When = "auto",
        question: str | None = None,
        cached: int | None = None,
        among: Collection[str] | None = None,
        budget: Budget | None = None,
    ) -> Prepared:
        """The messages to send for a conversation; the given ones are not changed.

        Args:
            messages: The whole conversation as the client has it, in OpenAI's form.
            tools: The tools that are sent with it; they count.
            session: The conversation's name; by default it is derived from the first message.
            compact: When to compact; see `When`.
            question: What the newest message needs; exact lines that answer it and are no longer
                shown are added to that message as a note.
            cached: Tokens of this prompt that the server is known to hold (0: none). By default
                it is taken to hold everything up to its last answer.
            among: The handles that such a note is made from; by default all of the session, whose
                name must then be this conversation's alone.
            budget: What the reasoner can take, if that is not the same for all requests.

        Raises:
            ContextOverflow: Even the smallest form exceeds the budget.
        """
        budget = budget or self.budget
        given = [one if type(one) is dict else dict(one) for one in messages]
        known = self._recent.look(given, session or session_of(given))
        undone = self._undone.look(known.session, known.chains)
        view = self._acceptance.with_accepted_folds(self._view(given, known), tools)
        before = view
        sizes = self._sizes(given, known)
        if budget.boundary is not None:
            view = self._with_excerpts(view, budget.boundary)
        limit = budget.limit
        asked_for = compact in ("phase", "now")
        # Where an edit costs a whole prompt, one is made when that must be read anyway.
        anew = budget.cache == "whole" and self._readings.starts_anew(view, tools)
        cached = 0 if anew else cached
        tokens, exact = self._count(view, sizes, tools, budget, near=asked_for or anew)
        exchange: Exchange | None = None
        reason = "below the trigger"
        if (compact == "never" or (undone and not asked_for)) and tokens <= limit:
            reason = "not asked for"
        elif asked_for or tokens > (budget.target if anew else budget.trigger) * limit:
            self._observer.observe(given, view.session)
            count = count_prompt(self.counter, view.render(), tools)
            target = 0 if asked_for else int(budget.target * limit)
            strategy = Strategy(
                view, self.freezer, self.counter, budget, tools, count, target, cached, undone
            )
            with self.freezer.table.asked_once():
                attempt = strategy.choose()
            tokens, exact, refused = count
            reason = "not worth it"
            if attempt:
                attempt.compaction.commit()
                reason = "would not fit" if tokens > limit else f"compacted ({compact})"
                view, exchange = attempt.compaction.view, attempt.exchange
                tokens, exact, refused = count_prompt(self.counter, view.render(), tools)
                if not refused:
                    self._acceptance.note(view)
        if question and given and given[-1].get("role") in ("user", "tool"):
            noted = self._with_note(view, question, budget, among)
            if noted is not view:
                then, exact_then = self._count(noted, sizes, tools, budget)
                if then <= limit:
                    self.freezer.table.save_edits([noted.edits[len(given) - 1][NOTE]])
                    view, tokens, exact = noted, then, exact_then
        note = view.edits.get(len(given) - 1, {}).get(NOTE)
        self._recent.keep(known, _Found(view, sizes))
        sent = [dict(message) for message in view.render()]
        keep_sent(self.memory, view.session, sent, self.budget.page)
        return Prepared(
            messages=sent,
            tokens=tokens,
            exact=exact,
            original_tokens=sum(sizes) + tokens_of_tools(tools, self.counter.text),
            session=view.session,
            exchange=exchange,
            compacted=tuple(
                edit.block.handle for edit in view.edits_since(before) if edit.block.handle
            ),
            note=note.block.text or None if note else None,
            reason=reason,
        )

    def summarize(
        self, messages: Sequence[Mapping[str, Any]], session: str | None = None
    ) -> Summary:
        """Compact a whole conversation into one text, which its client asks for.

        Instructions, and what comes before the first answer, are left to the client.

        Args:
            messages: The conversation.
            session: Its name; by default it is derived from the first message.

        Raises:
            ClaraError: There is nothing to compact, or the memory can't keep it.
        """
        given = [dict(message) for message in messages if not is_instruction(message)]
        if not given:
            raise ClaraError("there is nothing to compact: the conversation has no messages")
        name = session or session_of(given)
        self.observe(given, name)
        view = self._view(given, self._recent.look(given, name))
        characters = fold_characters(self.budget)
        return summarize(view, self.freezer, self.counter, characters)

    def observe(
        self, messages: Sequence[Mapping[str, Any]], session: str | None = None
    ) -> list[str]:
        """Remember a conversation's texts now, so that they are found, and compressed when needed.

        A long text is remembered by itself; the short ones of a step together, when it is over.

        Returns the handles. Nothing that the memory itself gave is remembered.
        """
        name = session or session_of(messages)
        self.draft_blocks(name)  # of what came before, if its caller had no time to spare
        return self._observer.observe(messages, name)

    def draft_blocks(self, session: str) -> None:
        """Draft blocks that may be needed soon, in time to spare; `prepare` does the rest."""
        self.freezer.drafts.make(session, needed_from(self.budget))

    def handles(
        self, messages: Sequence[Mapping[str, Any]], session: str, indices: Iterable[int]
    ) -> list[tuple[str, ...]]:
        """For messages with these indices, the handles that their texts have or will get.

        That of a step's short texts comes with its last message.
        """
        wanted = list(indices)
        those = set(wanted)
        spans = [span for span in units(messages) if not those.isdisjoint(range(*span))]
        kept = pieces_to_keep(messages, spans)
        places = [index for span in spans for index in range(*span)]
        found = dict(zip(places, kept, strict=True))
        return [self.freezer.handles(session, found[index]) for index in wanted]

    def handles_of_blocks(self, ends: Sequence[bytes]) -> set[str]:
        """The handles of the blocks and folds that were ever put into one conversation.

        Those that its folds have of steps are among them.

        ``ends`` are its chains, see `messages.chains`.
        """
        edits = self.freezer.table.edits(ends)
        folds = [edit.block.digest for edit in edits if edit.block.kind == "fold"]
        named = self.freezer.table.mentions(folds)  # what others wrote into a fold names none
        return {edit.block.handle for edit in edits if edit.block.handle} | named

    def handles_of_folds(self, messages: Sequence[Message], sessions: Collection[str]) -> set[str]:
        """The handles that those folds name which a client keeps; `summarize` gave them to it.

        ``sessions`` are the names of the conversation, and of those that it began in.
        """
        return handles_of_folds(messages, sessions, self.freezer)

    def rebuild(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The full history behind messages that `prepare` gave; needs nothing but the memory.

        Raises:
            StoreError: An original was forgotten, or is damaged.
        """
        return rebuild_history([dict(message) for message in messages], self.freezer)

    def undo(self, messages: Sequence[Mapping[str, Any]], session: str | None = None) -> int:
        """Forget how a conversation was edited, so that its next `prepare` starts from scratch.

        For a caller that wants the originals sent once more, say after raising the window. Blocks
        and originals stay, so `rebuild` still works on what was sent before.

        Returns the number of edits that were undone.
        """
        given = [dict(message) for message in messages]
        return self.freezer.table.drop_edits(View(given, session or session_of(given)).chains)

    def undo_session(self, session: str) -> int:
        """Have a conversation sent as it came again; see `undone.Undone`.

        It is compacted once more when it would not fit. Returns the number of blocks and folds
        that were sent in the place of its messages.

        Raises:
            UnknownSession: The memory has nothing of it.
        """
        return self._undone.undo(session)

    # -- steps -----------------------------------------------------------------------------------

    def _view(self, messages: list[Message], known: Known[_Found]) -> View:
        """The conversation with the edits of earlier requests whose originals still come back.

        Those of messages that were known before are read again only if others changed them.
        """
        table = self.freezer.table
        view = View(messages, known.session, ends=known.chains)
        new = view.chains
        if known.found:
            continued = known.found.view.continued(messages, known.chains, known.same)
            sent = [index for index in continued.sent_indices() if index < known.same]
            edits = [edit for i in sent for edit in continued.edits.get(i, {}).values()]
            chains = [known.chains[index] for index in sent]
            if table.are_still(edits, chains) and all(map(self._comes_back, edits)):
                view, new = continued, known.chains[known.same :]
        found = table.edits(new)
        view.add(filter(self._comes_back, found))
        return view

    def _comes_back(self, edit: Edit) -> bool:
        """Whether the original of what is replaced comes back."""
        return self.freezer.can_restore(edit.block)

    def _sizes(self, messages: list[Message], known: Known[_Found]) -> tuple[int, ...]:
        """The tokens of each message as it came, about."""
        before = list(known.found.sizes[: known.same]) if known.found else []
        for index in known.changed if before else ():
            before[index] = self._count_message(messages[index])
        return (*before, *map(self._count_message, messages[len(before) :]))

    def _with_excerpts(self, view: View, boundary: int) -> View:
        compaction = Compaction(view, self.freezer, self.counter)
        if not compaction.replace_with_excerpts(boundary):
            return view
        compaction.commit()
        return compaction.view

    def _with_note(
        self, view: View, question: str, budget: Budget, among: Collection[str] | None
    ) -> View:
        """The view with a recall note at its newest message, which is not saved.

        Nothing changes if the message has one already, or if nothing is compacted.
        """
        last = len(view.messages) - 1
        if NOTE in view.edits.get(last, {}) or not view.edits:
            return view
        noted = view.copy()
        noted.add([make_note(view, question, self.freezer, self.counter, budget.note, among)])
        return noted

    def _count(
        self,
        view: View,
        sizes: Sequence[int],
        tools: Sequence[Any] | None,
        budget: Budget,
        *,
        near: bool = False,
    ) -> tuple[int, bool]:
        """Tokens of what is sent, and whether that is the reasoner's own count.

        That is asked for only near the trigger, or if the caller says that this is ``near`` it.
        Else they are the sum over the messages, ``sizes`` as they came.
        """
        tokens = tokens_of_tools(tools, self.counter.text)
        for index in view.sent_indices():
            if index in view.edits:
                tokens += sum(map(self._count_message, view.render_at(index)))
            else:
                tokens += sizes[index]
        if near or tokens > _EXACT_COUNT_FROM * budget.trigger * budget.limit:
            return count_prompt(self.counter, view.render(), tools)[:2]
        return tokens, False

    def _count_message(self, message: Message) -> int:
        return message_tokens(message, self.counter.text)
