"""What is known of the newest conversations, so that a request costs what is new in it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clara_mlx.context.messages import chains, content_text, has_only_text

# The number of conversations that are known.
_CONVERSATIONS = 16

# What makes a message what it is, in texts that nobody can change.
Said = tuple[Any, ...]


@dataclass(frozen=True)
class Known:
    """A conversation as it was when it was last looked at.

    Attributes:
        said: Its messages.
        chains: The chain that ends with each.
        handles: Handles that were observed, for each of its first messages.
    """

    said: tuple[Said, ...] = ()
    chains: tuple[bytes, ...] = ()
    handles: tuple[tuple[str, ...], ...] = ()


class Recent:
    """The conversations that were looked at last. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, messages: Sequence[Mapping[str, Any]], session: str) -> Known:
        """What is known of these messages, all chains included."""
        said = tuple(map(_said, messages))
        with self._lock:
            known = self._known.get(session, Known())
        pairs = zip(said, known.said, strict=False)
        same = next(
            (i for i, (a, b) in enumerate(pairs) if a != b), min(len(said), len(known.said))
        )
        before = known.chains[:same]
        new = chains(messages[same:], session, before[-1] if before else None)
        found = Known(said, (*before, *new), known.handles[:same])
        self._keep(session, found)
        return found

    def add_handles(self, session: str, known: Known, handles: Sequence[tuple[str, ...]]) -> None:
        """Add the handles that were observed in the messages after those that have some."""
        self._keep(session, Known(known.said, known.chains, (*known.handles, *handles)))

    def _keep(self, session: str, known: Known) -> None:
        with self._lock:
            self._known[session] = known
            self._known.move_to_end(session)
            if len(self._known) > _CONVERSATIONS:
                self._known.popitem(last=False)


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
