"""The messages that a fold is sent as, so that roles alternate wherever the client's did.

Templates that insist on it count users' messages and the assistant's without calls. A fold that
ends where the assistant has answered stands for that answer. Any other one is the result of a
call of `expand`, which does not count: after the task, the next to speak is the assistant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clara_mlx.context.messages import Message, calls_in, content_text
from clara_mlx.context.table import Block

#: The part of an edit for a fold that is sent as an assistant's answer.
ANSWER = "fold"

#: The part of an edit for a fold that is sent as a call with its result.
CALLED = "called"

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
        return [{"role": "assistant", "content": text}]
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


def turn_before(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The role of the last turn: of a user's message, or the assistant's without calls."""
    for message in reversed(messages):
        role = message.get("role")
        if role in ("user", "assistant") and not message.get("tool_calls"):
            return str(role)
    return None


def choose_form(
    sent: Sequence[Mapping[str, Any]],
    given: Sequence[Mapping[str, Any]],
    folded: Sequence[Mapping[str, Any]],
) -> tuple[str, bool]:
    """The form in which a fold leaves roles alternating, and whether there is one.

    Args:
        sent: The messages that are sent before it.
        given: The client's messages up to and with those that are folded.
        folded: Those that are folded. If they call nothing, the template may know no calls.
    """
    before, last = turn_before(sent), turn_before(given)
    calls = any(message.get("tool_calls") for message in folded)
    form = ANSWER if last == "assistant" != before or not calls else CALLED
    # After an earlier fold that is an answer, no form of ours can be a user's turn.
    return form, not (before == "assistant" and last == "user")
