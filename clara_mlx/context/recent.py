"""What is known of the newest conversations, so that a request costs what is new in it.

Each request has the whole conversation, mostly as it was plus some messages. What was found out
about those that are the same is not found out again. Nothing here is saved: another process, or
this one after a restart, finds out everything once more and comes to the same.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import eq
from typing import Any, Generic, TypeVar

from clara_mlx.context.messages import (
    Message,
    calls_in,
    chains,
    content_text,
    content_texts,
    has_only_text,
    is_instruction,
)

# The most names of which conversations are known; the least recently seen go first.
_CONVERSATIONS = 64

# The most characters that they may have together. One longer conversation is known all the same.
_CHARACTERS = 32_000_000

#: What is found out about conversations.
Found = TypeVar("Found")

# What makes a message what it is, in texts that nobody can change.
Said = tuple[Any, ...]


@dataclass(frozen=True)
class Known(Generic[Found]):
    """A conversation, and what is known of its beginning.

    Attributes:
        session: The conversation's name.
        messages: Copies of its messages, which nobody else can change.
        chains: The chain that ends with each.
        same: The number of its first messages that were known before.
        changed: Those of them that are written otherwise now, in what chains leave out: agents
            rewrite instructions, and drop reasoning.
        found: What was found out about these, and perhaps others that followed; None if nothing.
        ends: The characters up to the end of each message.
        odd: The indices of messages that have more than texts.
        continues: The known conversation that it takes the place of.
    """

    session: str
    messages: tuple[Message, ...] = ()
    chains: tuple[bytes, ...] = ()
    same: int = 0
    changed: tuple[int, ...] = ()
    found: Found | None = None
    ends: tuple[int, ...] = ()
    odd: tuple[int, ...] = ()
    continues: Known[Found] | None = None


class Recent(Generic[Found]):
    """The conversations that were looked at last. Safe to use from several threads.

    Args:
        most_of_name: The most conversations of one name: agents that work for one can share its
            name, and people who open with the same words do.
    """

    def __init__(self, most_of_name: int = 4) -> None:
        self._most_of_name = most_of_name
        # Names and their conversations, the most recently seen last.
        self._known: OrderedDict[str, tuple[Known[Found], ...]] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def look(self, messages: Sequence[Mapping[str, Any]], session: str) -> Known[Found]:
        """A conversation with all its chains, and what is known of it."""
        before, same, changed, continues = self._longest(messages, session)
        old = list(before.messages[:same])
        for index in changed:
            old[index] = _copy(messages[index])
        new = [_copy(message) for message in messages[same:]]
        last = before.chains[same - 1] if same else None
        characters = before.ends[same - 1] if same else 0
        ends = accumulate(map(_characters, new), initial=characters)
        next(ends)
        return Known(
            session,
            (*old, *new),
            (*before.chains[:same], *chains(new, session, last)),
            same,
            changed,
            before.found,
            (*before.ends[:same], *ends),
            (
                *(index for index in before.odd if index < same),
                *(index for index, one in enumerate(new, same) if _has_more_than_text(one)),
            ),
            continues,
        )

    def keep(self, known: Known[Found], found: Found) -> None:
        """Keep what was found out about a conversation that `look` gave."""
        kept = replace(known, found=found, continues=None)
        with self._lock:
            before = self._known.pop(known.session, ())
            others = [one for one in before if one is not known.continues]
            after = (*others, kept)[-self._most_of_name :]
            self._known[known.session] = after
            self._characters += _all_characters(after) - _all_characters(before)
            while len(self._known) > 1 and (
                len(self._known) > _CONVERSATIONS or self._characters > _CHARACTERS
            ):
                _, oldest = self._known.popitem(last=False)
                self._characters -= _all_characters(oldest)

    def _longest(
        self, messages: Sequence[Mapping[str, Any]], session: str
    ) -> tuple[Known[Found], int, tuple[int, ...], Known[Found] | None]:
        """The known conversation that has the longest beginning in common with this one.

        Returns it, the number of messages in common, those of them that are written otherwise, and
        it once more if this one continues it.
        """
        with self._lock:
            known = self._known.get(session, ())
        best: Known[Found] = Known(session)
        same = 0
        changed: tuple[int, ...] = ()
        continues: Known[Found] | None = None
        for other in reversed(known):
            in_common, differently = _in_common(other, messages)
            if in_common > same:
                best, same, changed = other, in_common, differently
                # Another one, beside it, has only the task and some steps in common.
                continues = other if 4 * in_common > 3 * len(other.messages) else None
        return best, same, changed, continues


def _all_characters(known: Sequence[Known[Any]]) -> int:
    return sum(one.ends[-1] for one in known if one.ends)


def _in_common(
    known: Known[Any], messages: Sequence[Mapping[str, Any]]
) -> tuple[int, tuple[int, ...]]:
    """The number of first messages that are one in both, and those that are written otherwise."""
    most = min(len(known.messages), len(messages))
    changed: list[int] = []
    first = 0
    while first < most:
        pairs = map(eq, known.messages[first:], messages[first:most])
        first = next((index for index, same in enumerate(pairs, first) if not same), most)
        if first == most or not _are_one(known.messages[first], messages[first]):
            break
        changed.append(first)
        first += 1
    # True is 1 for Python, and not for a reasoner.
    odd = (index for index in known.odd if index < first)
    first = next((i for i in odd if _said(known.messages[i]) != _said(messages[i])), first)
    return first, tuple(index for index in changed if index < first)


def _are_one(known: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    """Whether two messages that differ are one in a chain: see `messages.chains`."""
    if is_instruction(known) or is_instruction(message):
        return is_instruction(known) and is_instruction(message)
    return _said(known) == _said(message)


def _copy(value: Any) -> Any:
    """A value whose lists and objects are its own."""
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _characters(message: Mapping[str, Any]) -> int:
    texts = [*content_texts(message), *(arguments for _, arguments in calls_in(message))]
    return sum(map(len, texts))


def _has_more_than_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    functions = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    given = [function.get("arguments") for function in functions]
    is_text = content is None or isinstance(content, str) or has_only_text(content)
    return not is_text or not all(one is None or isinstance(one, str) for one in given)


def _said(message: Mapping[str, Any]) -> Said:
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        content = content_text(message) if has_only_text(content) else _written(content)
    calls = message.get("tool_calls")
    return (
        message.get("role"),
        content or "",
        message.get("name"),
        message.get("tool_call_id"),
        tuple(map(_call, calls)) if calls else (),
    )


def _call(call: Mapping[str, Any]) -> Said:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = _written(arguments)
    return call.get("id"), function.get("name"), arguments


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
