"""Observing a conversation: its texts are remembered as they come, before any block is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from clara_mlx.context.freezer import Freezer
from clara_mlx.context.messages import units
from clara_mlx.context.recent import Known, Recent
from clara_mlx.context.steps import is_over, pieces_to_keep

# The handles that a message has when all of its unit is there, which can be none.
_Handles = tuple[str, ...]


class Observer:
    """Remembers what is new in conversations. Safe to use from several threads.

    Args:
        freezer: Remembers their texts.
    """

    def __init__(self, freezer: Freezer) -> None:
        self._freezer = freezer
        self._recent: Recent[Sequence[_Handles]] = Recent(most_of_name=1)

    def observe(self, messages: Sequence[Mapping[str, Any]], session: str) -> list[str]:
        """Remember the texts of a conversation; returns the handles of those that still exist."""
        with self._freezer.table.asked_once():
            return self._observe(messages, session)

    def _observe(self, messages: Sequence[Mapping[str, Any]], session: str) -> list[str]:
        known = self._recent.look(messages, session)
        before = _of_whole_units(known, messages)
        spans = units(messages, len(before))
        kept = pieces_to_keep(messages, spans)
        seen = self._freezer.table.seen()
        found = self._freezer.observe_all(session, list(chain.from_iterable(kept)))
        seen.update(found.values())
        new: list[_Handles] = []
        first = 0
        for pieces in kept:
            indices = range(first, first + len(pieces))
            new.append(tuple(found[index] for index in indices if index in found))
            first = indices.stop
        over = spans[-1][0] if spans and not is_over(messages, spans[-1]) else len(messages)
        old = list(chain.from_iterable(before))
        self._recent.keep(known, [*before, *new[: over - len(before)]])
        there = self._freezer.table.existing(old)
        old = [handle for handle in old if handle in there]
        return list(dict.fromkeys([*old, *chain.from_iterable(new)]))


def _of_whole_units(
    known: Known[Sequence[_Handles]], messages: Sequence[Mapping[str, Any]]
) -> Sequence[_Handles]:
    """The handles of the first messages, as far as they are known and can't be others now.

    The last unit is left out: another result may have joined it, or one may be gone.
    """
    handles = known.found[: known.same] if known.found else []
    start = max(0, len(handles) - 1)
    while start and messages[start].get("role") == "tool":
        start -= 1
    return handles[:start]
