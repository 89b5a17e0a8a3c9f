"""The messages that a fold is sent as, so that roles alternate wherever the client's did.

Templates that insist on it count users' messages and the assistant's without calls. A fold that
ends where the assistant has answered stands for that answer. Most others are the result of a call
of `expand`, which does not count: after the task, the next to speak is the assistant. Where
neither keeps the roles alternating, a fold is a user's message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from clara_mlx.context.messages import Message, calls_in, content_text
from clara_mlx.context.table import Block

#: The part of an edit for a fold that is sent as an assistant's answer.
ANSWER = "fold"

#: The part of an edit for a fold that is sent as a call with its result.
CALLED = "called"

#: The part of an edit for a fold that is sent as a user's message.
AS_USER = "user"

#: All forms of a fold.
FORMS = (ANSWER, CALLED, AS_USER)

# The tool whose result it seems to be.
_TOOL = "expand"

# Characters of a call's id; some templates want exactly nine, letters and digits.
_ID = 9


def fold_part(form: str, count: int) -> str:
    """The part of an edit that stands for the ``count`` messages that end with this one."""
    return f"{form}.{count}"


def fold_form(part: str) -> tuple[str, int]:
    """The form of a fold, and the number of messages that it stands for."""
    form, _, count = part.partition(".")
    return form, int(count)


def fold_messages(form: str, handle: str, text: str) -> list[Message]:
    """The messages of a fold with this text."""
    if form != CALLED:
        return [{"role": "user" if form == AS_USER else "assistant", "content": text}]
    id = f"f{handle.removeprefix('m-')}"[:_ID]
    function = {"name": _TOOL, "arguments": json.dumps({"handle": handle})}
    return [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": id, "content": text},
    ]


def called_fold(pair: Sequence[Mapping[str, Any]], block: Block) -> bool:
    """Whether two messages are a fold in its called form."""
    call, result = pair
    expected = fold_messages(CALLED, str(block.handle), content_text(result))
    return (
        block.kind == "fold"
        and result.get("role") == "tool"
        and result.get("tool_call_id") == expected[1]["tool_call_id"]
        and not content_text(call)
        and calls_in(call) == calls_in(expected[0])
    )


def turns(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """The roles that templates count: of users' messages, and the assistant's without calls."""
    return [
        str(message["role"])
        for message in messages
        if message.get("role") in ("user", "assistant") and not message.get("tool_calls")
    ]


def turn_before(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The role of the last turn."""
    return next(iter(turns(reversed(messages))), None)


def repeated_turns(messages: Iterable[Mapping[str, Any]]) -> int:
    """How often a turn has the same role as the one before it; 0: roles alternate."""
    return sum(a == b for a, b in pairwise(turns(messages)))


def choose_form(
    before: Sequence[Message],
    folded: Sequence[Message],
    after: Sequence[Message],
    place: Callable[[Sequence[Message]], Sequence[Message]],
) -> tuple[str, bool]:
    """The form in which a fold leaves roles alternating, and whether they do where they did.

    Args:
        before: The messages that are sent before it.
        folded: Those that it stands for.
        after: Those that come after it.
        place: Puts instructions amid messages where the template takes them.
    """
    given = [*before, *folded, *after]
    if not any(message.get("tool_calls") for message in given):
        forms: tuple[str, ...] = (ANSWER, AS_USER)  # the template may know no calls
    elif turn_before([*before, *folded]) == "assistant" != turn_before(before):
        forms = FORMS
    else:
        forms = (CALLED, ANSWER, AS_USER)
    placed = place(given)
    last = turn_before(placed)  # what the client appends later must alternate with that

    def faults(form: str) -> int:
        new = place([*before, *fold_messages(form, "m-", ""), *after])
        return repeated_turns(new) + (turn_before(new) != last)

    best = min(forms, key=faults)
    return best, faults(best) <= repeated_turns(placed)
