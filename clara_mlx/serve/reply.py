"""A reasoner's answer as it arrives: what the client may see of it, and what is for the memory."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.context.messages import Message

#: A JSON object.
Object = dict[str, Any]


@dataclass
class Call:
    """A tool call; ``own`` ones are answered here, the others have a place in what clients see."""

    id: str
    name: str = ""
    arguments: str = ""
    own: bool = False
    place: int | None = None

    def written(self) -> Object:
        """As it stands in a message."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass
class Assembly:
    """One round's answer, from chunks or in one piece.

    Args:
        own: names of the tools that are answered here.
        one_call: only the first of the client's calls is passed on.
    """

    own: frozenset[str]
    one_call: bool = False
    content: str = ""
    reasoning: str = ""
    finish: str | None = None
    usage: Object | None = None
    _calls: dict[Any, Call] = field(default_factory=dict)
    _last: Any = None

    @property
    def calls(self) -> list[Call]:
        """Every call that has a name, in the order they came."""
        return [call for call in self._calls.values() if call.name]

    @property
    def own_calls(self) -> list[Call]:
        """Those that are answered here."""
        return [call for call in self.calls if call.own]

    @property
    def client_calls(self) -> list[Call]:
        """Those that the client gets."""
        return [call for call in self.calls if call.place is not None]

    @property
    def lost_a_call(self) -> bool:
        """Whether the server says that there is a call but could not read it."""
        return self.finish == "tool_calls" and not self.calls

    def message(self) -> Message:
        """The message as the reasoner wrote it, with all calls that are answered here or passed on.

        A call beyond the first that `one_call` keeps from the client is left out.
        """
        message: Message = {"role": "assistant", "content": self.content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        calls = [call.written() for call in self.calls if call.own or call.place is not None]
        if calls:
            message["tool_calls"] = calls
        return message

    def whole(self, message: Mapping[str, Any], finish: str | None, usage: Any) -> None:
        """Take an answer that came in one piece."""
        delta = dict(message)
        delta["tool_calls"] = [
            {**call, "index": index}
            for index, call in enumerate(message.get("tool_calls") or [])
            if isinstance(call, dict)
        ]
        self.feed({"choices": [{"delta": delta, "finish_reason": finish}], "usage": usage})

    def feed(self, chunk: Mapping[str, Any]) -> Object | None:
        """Take a chunk; what the client may see of it as a delta, or None."""
        if isinstance(chunk.get("usage"), dict):
            self.usage = dict(chunk["usage"])
        choice = next((c for c in chunk.get("choices") or [] if c.get("index", 0) == 0), None)
        if choice is None:
            return None
        self.finish = choice.get("finish_reason") or self.finish
        delta = choice.get("delta") or {}
        seen: Object = {}
        if isinstance(delta.get("content"), str) and delta["content"]:
            seen["content"] = delta["content"]
            self.content += delta["content"]
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            seen |= both_reasonings(thought)
            self.reasoning += thought
        calls = [self._call(call) for call in delta.get("tool_calls") or []]
        if any(calls):
            seen["tool_calls"] = [call for call in calls if call]
        return seen or None

    def _call(self, delta: Any) -> Object | None:
        if not isinstance(delta, dict):
            return None
        call = self._calls[self._key(delta)]
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        piece = function.get("arguments") or ""
        if not isinstance(piece, str):
            piece = json.dumps(piece, ensure_ascii=False)
        call.arguments += piece
        first = not call.name and isinstance(function.get("name"), str) and function["name"]
        if first:
            call.name = function["name"]
            call.own = call.name in self.own
            shown = sum(other.place is not None for other in self._calls.values())
            if not call.own and not (self.one_call and shown):
                call.place = shown
        if call.place is None:
            return None
        if first:
            return {"index": call.place, **call.written()}
        return {"index": call.place, "function": {"arguments": piece}} if piece else None

    def _key(self, delta: Mapping[str, Any]) -> Any:
        """Which call a delta belongs to; servers leave out the index, the id, or repeat them."""
        id, index = delta.get("id"), delta.get("index")
        key = index if isinstance(index, int) else (id or self._last)
        known = self._calls.get(key)
        if known and id and known.name and id != known.id and delta.get("function", {}).get("name"):
            key = id  # another call under an index that is taken
        if key not in self._calls:
            taken = {call.id for call in self._calls.values()}
            unique = isinstance(id, str) and id and id not in taken
            self._calls[key] = Call(str(id) if unique else f"call_{uuid.uuid4().hex[:24]}")
        self._last = key
        return key


def both_reasonings(thought: str) -> Object:
    """A reasoning under both names that clients look for."""
    return {"reasoning": thought, "reasoning_content": thought}
