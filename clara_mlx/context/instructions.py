"""Instructions amid a conversation, put where a reasoner's template takes them.

Agents send a system message every few turns. Some templates refuse one that is not the first; and
of those, some also refuse two user's messages in a row, so that it can't simply become one. These
do not take a user's message after the result of a tool either, which agents send as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from clara_mlx.context.messages import Message, content_text, is_instruction, with_note

# Between an instruction and the text that it is joined to.
_GAP = "\n\n"

# What an assistant says between the result of a tool and a user's words.
_READ = "Noted."

# What comes before an instruction that is joined to the result of a tool.
_IN_A_RESULT = "\n\n[system message]\n"


def place_instructions(messages: Sequence[Message], *, alternating: bool) -> list[Message]:
    """Messages in which instructions that come too late are users' words.

    Args:
        messages: What would be sent; not changed.
        alternating: Whether users' and assistants' messages must take turns. If so, an instruction
            is joined to the message beside it, users' messages in a row are one, and an answer
            follows the result of a tool.
    """
    if alternating:
        return _with_answers(_with_users_joined(_joined(messages)))
    return [*messages[:1], *map(_as_user, messages[1:])]


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Join late instructions to the user's next message, else to what came before.

    Between two answers, one is a user's message by itself.
    """
    placed = list(messages[:1])
    waiting: list[Message] = []
    for message in messages[1:]:
        if is_instruction(message):
            waiting.append(message)
            continue
        if waiting and message.get("role") == "user":
            message = _before(_text_of(waiting), message)
        elif waiting:
            _append(placed, waiting)
        waiting = []
        placed.append(message)
    if waiting:
        _append(placed, waiting)
    return placed


def _with_users_joined(messages: Sequence[Message]) -> list[Message]:
    """The messages with one of a user's where there were several, as Codex begins with two."""
    joined: list[Message] = []
    for message in messages:
        before = joined[-1].get("content") if joined else None
        both_are_users = joined and message.get("role") == joined[-1].get("role") == "user"
        if both_are_users and isinstance(before, str):
            joined[-1] = _before(before, message)
        elif both_are_users and isinstance(message.get("content"), str):
            joined[-1] = with_note(joined[-1], _GAP + str(message["content"]))
        elif both_are_users:
            parts = [*(before or ()), *(message.get("content") or ())]
            joined[-1] = {**message, "content": parts}
        else:
            joined.append(message)
    return joined


def _with_answers(messages: Sequence[Message]) -> list[Message]:
    """The messages with an answer between the result of a tool and a user's words."""
    answered: list[Message] = []
    for message in messages:
        if message.get("role") == "user" and answered and answered[-1].get("role") == "tool":
            answered.append({"role": "assistant", "content": _READ})
        answered.append(message)
    return answered


def _append(placed: list[Message], instructions: Sequence[Message]) -> None:
    last = placed[-1]
    text = _text_of(instructions)
    if last.get("role") == "tool":
        placed[-1] = with_note(last, _IN_A_RESULT + text)
    elif last.get("role") == "assistant":
        placed.append({"role": "user", "content": text})
    else:
        placed[-1] = with_note(last, _GAP + text)


def _before(text: str, message: Message) -> Message:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [{"type": "text", "text": text + _GAP}, *content]}
    return {**message, "content": text + _GAP + (content or "")}


def _text_of(instructions: Sequence[Message]) -> str:
    return _GAP.join(map(content_text, instructions))


def _as_user(message: Message) -> Message:
    return {**message, "role": "user"} if is_instruction(message) else message
