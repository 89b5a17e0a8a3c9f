"""What a conversation has in sight, so that the memory does not show it once more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from clara_mlx.context.messages import Message, calls_in, content_text
from clara_mlx.memory import Memory
from clara_mlx.tool_outputs.undress import undress

# Conversations of one memory of which the messages that were last sent are kept; the least recent
# ones go first.
_CONVERSATIONS = 64

# A line of fewer characters is not looked for inside longer ones: it stands in almost every text.
_LEAST_INSIDE = 3


class Shown:
    """Tells whether lines are part of a text."""

    def __init__(self, text: str) -> None:
        view = undress(text).text
        self._texts = [text] if view is text else [text, view]
        self._lines = {line.strip() for line in view.split("\n")}
        self._found: dict[str, bool] = {}

    def __contains__(self, line: object) -> bool:
        line = str(line).strip()
        if line in self._lines:
            return True
        if line not in self._found:
            inside = len(line) >= _LEAST_INSIDE and any(line in text for text in self._texts)
            self._found[line] = inside
        return self._found[line]


class _Conversation(NamedTuple):
    """What is known of a conversation: what was last sent of it, and how long its pages may be."""

    messages: Sequence[Message]
    page: int  # characters


class _Sent:
    """What was last sent of the conversations over one memory."""

    def __init__(self) -> None:
        self.by_session: OrderedDict[str, _Conversation] = OrderedDict()
        self.several = False  # whether there ever was more than one conversation


_sent: WeakKeyDictionary[Memory, _Sent] = WeakKeyDictionary()
_lock = Lock()


def keep_sent(memory: Memory, session: str, messages: Sequence[Message], page: int) -> None:
    """Keep what was last sent of a conversation, in this process only.

    Args:
        memory: The memory of the conversation.
        session: The conversation's name.
        messages: What was sent.
        page: Characters that a page of an original may have in it.
    """
    with _lock:
        sent = _sent.setdefault(memory, _Sent())
        sent.by_session[session] = _Conversation(messages, page)
        sent.by_session.move_to_end(session)
        sent.several = sent.several or len(sent.by_session) > 1
        if len(sent.by_session) > _CONVERSATIONS:
            sent.by_session.popitem(last=False)


def last_sent(memory: Memory, where: Mapping[str, Any] | None = None) -> str:
    """The text that was last sent of the conversation that asks; empty if that is not known.

    Args:
        memory: The memory that is asked.
        where: What the search is narrowed to: one that names a session asks for that conversation.
            Without a session, it is known only if this process never sent another conversation.
    """
    conversation = _find(memory, where)
    return text_of(conversation.messages) if conversation else ""


def page_room(memory: Memory, where: Mapping[str, Any] | None = None) -> int | None:
    """Characters that a page may have in the conversation that asks; None if it is not known.

    The arguments are those of `last_sent`.
    """
    conversation = _find(memory, where)
    return conversation.page if conversation else None


def _find(memory: Memory, where: Mapping[str, Any] | None) -> _Conversation | None:
    """The conversation that asks, if it is known."""
    session = (where or {}).get("session")
    with _lock:
        sent = _sent.get(memory)
        if sent is None or (session is None and sent.several):
            return None
        if session is None:
            (session,) = sent.by_session
        return sent.by_session.get(session) if isinstance(session, str) else None


def text_of(messages: Sequence[Message]) -> str:
    """All that messages say, and the arguments of their calls."""
    parts: list[str] = []
    for message in messages:
        parts.append(content_text(message))
        parts += [arguments for _, arguments in calls_in(message)]
    return "\n".join(parts)
