"""Sees to it that the reasoner's template takes a compacted conversation if it takes the original.

Only folds change which messages there are, and in which roles. A fold that was made for another
reasoner, or by an earlier version, may make the template refuse the whole conversation, in every
request from then on. It is then sent in another form, or not at all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from clara_mlx.context.compaction import Compaction
from clara_mlx.context.counting import Counter, count_prompt, for_template
from clara_mlx.context.fold_form import FORMS, fold_form, fold_part, repeated_turns
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import Message
from clara_mlx.context.view import View

# The number of conversations whose folds are known to be accepted.
_CONVERSATIONS = 256


class Acceptance:
    """Checks the folds of conversations, each once. Safe to use from several threads.

    Args:
        freezer: Its table keeps the edits.
        counter: Knows the reasoner's template, if any is known.
    """

    def __init__(self, freezer: Freezer, counter: Counter) -> None:
        self._freezer = freezer
        self._counter = counter
        self._accepted: OrderedDict[tuple[str, frozenset[tuple[bytes, str]]], None] = OrderedDict()
        self._lock = Lock()

    def note(self, view: View) -> None:
        """Note that a view is accepted as it is."""
        with self._lock:
            self._accepted[_key(view)] = None
            if len(self._accepted) > _CONVERSATIONS:
                self._accepted.popitem(last=False)

    def with_accepted_folds(self, view: View, tools: Sequence[Any] | None) -> View:
        """The view, with its folds in other forms if the template would refuse it for them.

        What is changed is saved. If the template refuses the client's own messages, nothing is.

        Raises:
            StoreError: It can't be saved.
        """
        if not view.folds or _key(view) in self._accepted:
            return view
        if not self._accepts(view.render(), tools) and self._accepts(view.messages, tools):
            others = (one for one in self._others(view) if self._accepts(one.render(), tools))
            other = next(others, view)
            self._save(view, other)
            view = other
        self.note(view)
        return view

    def _accepts(self, messages: Sequence[Message], tools: Sequence[Any] | None) -> bool:
        """Whether the template takes messages; if it is not known, whether roles alternate."""
        if self._counter.exact:
            return not count_prompt(self._counter, messages, tools).refused
        return not repeated_turns(for_template(self._counter, messages))

    def _save(self, before: View, after: View) -> None:
        """Save the edits of one view in the place of another's."""
        old, new = before.all_edits(), after.all_edits()
        added = [edit for edit in new if edit not in old]
        self._freezer.table.save_edits(added, without=[edit for edit in old if edit not in new])

    def _others(self, view: View) -> Iterator[View]:
        """The view with other forms of its folds, the best first; the last one has no fold."""
        chosen = view
        for end in sorted(end for end in view.sent_indices() if end in view.folds):
            start, _ = view.folds[end]
            form, _ = Compaction(chosen, self._freezer, self._counter).choose_form(start, end + 1)
            chosen = _in_form(chosen, form, {end})
        yield chosen
        for form in FORMS:
            yield _in_form(view, form, set(view.folds))
        yield View(
            view.messages,
            view.session,
            (edit for edit in view.all_edits() if edit.block.kind != "fold"),
            view.chains,
        )


def _in_form(view: View, form: str, ends: set[int]) -> View:
    """The view with the folds that end at these indices in another form."""
    edits = view.all_edits()
    for end in ends:
        _, edit = view.folds[end]
        other = replace(edit, part=fold_part(form, fold_form(edit.part)[1]))
        edits = [other if one == edit else one for one in edits]
    return View(view.messages, view.session, edits, view.chains)


def _key(view: View) -> tuple[str, frozenset[tuple[bytes, str]]]:
    """What tells folds of a conversation from others."""
    return view.session, frozenset((edit.chain, edit.part) for _, edit in view.folds.values())
