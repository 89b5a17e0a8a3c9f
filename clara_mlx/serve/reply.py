"""The inner form of a reasoner's answer: what the client may see, and the calls of the memory."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.context.messages import Message
from clara_mlx.serve.request import readable_arguments

#: A JSON object.
Object = dict[str, Any]

# Characters of an id that is made here; Mistral's templates take no other number.
_ID_CHARACTERS = 9


@dataclass
class Call:
    """A tool call."""

    id: str
    name: str = ""  # as far as it has come; some servers send it in pieces
    arguments: str = ""
    known: bool = False  # whether the whole name is known
    own: bool = False  # whether the gateway answers it
    place: int | None = None  # among the calls that the client sees, if it is one of them

    def as_message_part(self) -> Object:
        """The call as an entry of a message's ``tool_calls``, as the reasoner wrote it."""
        return self._with(self.arguments)

    def as_history(self) -> Object:
        """The same as it will be in the conversation's later requests, see `request.repair`."""
        return self._with(readable_arguments(self.arguments))

    def _with(self, arguments: str) -> Object:
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass
class Reply:
    """One round's answer, taken from chunks or in one piece."""

    own: frozenset[str]  # names of the tools whose calls the gateway answers
    one_call: bool = False  # whether only the first of the client's calls is passed on
    taken: frozenset[str] = frozenset()  # ids of calls that the conversation has already
    content: str = ""
    refusal: str = ""  # what it says instead, where a server tells the two apart
    reasoning: str = ""
    finish: str | None = None
    usage: Object | None = None
    _calls: dict[Any, Call] = field(default_factory=dict)
    _ids: set[str] = field(default_factory=set)  # of these calls
    _newest_key: Any = None
    _current: Call | None = None  # the call that the newest piece belongs to
    _shown: int = 0  # number of calls that the client sees

    @property
    def calls(self) -> list[Call]:
        """Every call that has a name, in the order they came."""
        return [call for call in self._calls.values() if call.name]

    @property
    def own_calls(self) -> list[Call]:
        """The calls that the gateway answers."""
        return [call for call in self.calls if call.own]

    @property
    def client_calls(self) -> list[Call]:
        """The calls that the client gets."""
        return [call for call in self.calls if call.place is not None]

    @property
    def has_lost_a_call(self) -> bool:
        """Whether the server says that there is a call but could not read it."""
        return self.finish in ("tool_calls", "function_call") and not self.calls

    def message(self) -> Message:
        """The message as later requests have it, with all calls answered here or passed on.

        A call beyond the first that `one_call` keeps from the client is left out.
        """
        message: Message = {"role": "assistant", "content": self.content or self.refusal}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        calls = [c.as_history() for c in self.calls if c.own or c.place is not None]
        if calls:
            message["tool_calls"] = calls
        return message

    def take_answer(self, answer: Mapping[str, Any]) -> Object | None:
        """Take an answer that came in one piece, as if it were the only chunk of a stream."""
        choice = answer["choices"][0]
        message = choice["message"]
        calls = [{**call, "index": i} for i, call in enumerate(_calls_in(message))]
        delta = {**message, "tool_calls": calls, "function_call": None}
        only = {"delta": delta, "finish_reason": choice.get("finish_reason") or "stop"}
        return self.take_chunk({"choices": [only], "usage": answer.get("usage")})

    def take_chunk(self, chunk: Mapping[str, Any]) -> Object | None:
        """Add a chunk; returns what the client may see of it as a delta, or None."""
        if isinstance(chunk.get("usage"), dict):
            self.usage = dict(chunk["usage"])
        choice = first_choice(chunk)
        if choice is None:
            return None
        self.finish = choice.get("finish_reason") or self.finish
        delta = choice.get("delta") or {}
        text, thought = _text_and_thought(delta)
        seen: Object = {}
        if text:
            seen["content"] = text
            self.content += text
        if isinstance(delta.get("refusal"), str) and delta["refusal"]:
            seen["refusal"] = delta["refusal"]
            self.refusal += delta["refusal"]
        if thought:
            seen |= under_both_names(thought)
            self.reasoning += thought
        calls = self._take_calls(_calls_in(delta), is_last=self.finish is not None)
        if calls:
            seen["tool_calls"] = calls
        return seen or None

    def _take_calls(self, deltas: list[Object], *, is_last: bool) -> list[Object]:
        """Add pieces of calls; returns what the client may see of them."""
        seen = []
        for delta in deltas:
            call = self._call_of(delta)
            # A name is complete when its arguments begin, or another call.
            if call is not self._current:
                seen += self._show(self._current)
                self._current = call
            piece = self._add_to_call(call, delta)
            if call.place is not None and piece:
                seen.append({"index": call.place, "function": {"arguments": piece}})
            elif piece:
                seen += self._show(call)
        if is_last:
            seen += self._show(self._current)
        return seen

    def _add_to_call(self, call: Call, delta: Object) -> str:
        """Add a piece to a call; returns what it adds to the arguments."""
        function = _function_of(delta)
        name = function.get("name")
        # A server may send the name in pieces, or the whole of it each time.
        if isinstance(name, str) and not call.known and name != call.name:
            call.name += name
        piece = function.get("arguments") or ""
        if not isinstance(piece, str):
            piece = json.dumps(piece, ensure_ascii=False)
        call.arguments += piece
        return piece

    def _show(self, call: Call | None) -> list[Object]:
        """The beginning of a call whose name is complete now, as far as the client may see it."""
        if call is None or call.known or not call.name:
            return []
        call.known = True
        call.own = call.name in self.own
        if call.own or (self.one_call and self._shown):
            return []
        call.place = self._shown
        self._shown += 1
        return [{"index": call.place, **call.as_message_part()}]

    def _call_of(self, delta: Mapping[str, Any]) -> Call:
        """The call that a delta belongs to; servers leave out the index, the id, or repeat them."""
        id = delta.get("id") if isinstance(delta.get("id"), str) else None
        index = delta.get("index")
        key = index if isinstance(index, int) else (id or self._newest_key)
        known = self._calls.get(key)
        if known and id and known.name and id != known.id and _function_of(delta).get("name"):
            key = id  # another call under an index that is taken
        if key not in self._calls:
            # Some servers give every call the same id; Claude Code then loses all but one result.
            is_taken = not id or id in self._ids or id in self.taken
            call = Call(uuid.uuid4().hex[:_ID_CHARACTERS] if is_taken else str(id))
            self._calls[key] = call
            self._ids.add(call.id)
        self._newest_key = key
        return self._calls[key]


def under_both_names(thought: str) -> Object:
    """Reasoning text under both names that clients look for."""
    return {"reasoning": thought, "reasoning_content": thought}


def _text_and_thought(delta: Mapping[str, Any]) -> tuple[str, str]:
    """What a delta says, and what it thinks; both may be lists of parts."""
    content = delta.get("content")
    parts = content if isinstance(content, list) else []
    texts = [content if isinstance(content, str) else "", *_texts(parts, "text")]
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    thoughts = [thought if isinstance(thought, str) else ""]
    for value in (part.get("thinking") for part in parts if isinstance(part, dict)):
        thoughts += [value] if isinstance(value, str) else _texts(value, "text")
    return "".join(texts), "".join(thoughts)


def _function_of(delta: Mapping[str, Any]) -> Object:
    function = delta.get("function")
    return function if isinstance(function, dict) else {}


def _texts(parts: Any, name: str) -> list[str]:
    if not isinstance(parts, list):
        return []
    values = [part.get(name) for part in parts if isinstance(part, dict)]
    return [value for value in values if isinstance(value, str)]


def _calls_in(delta: Mapping[str, Any]) -> list[Object]:
    """The calls of a delta, or the one that it has in the older form, which knows only one."""
    calls = delta.get("tool_calls")
    found = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    older = delta.get("function_call")
    if not found and isinstance(older, dict) and older:
        found = [{"index": 0, "function": older}]
    return found


def first_choice(chunk: Mapping[str, Any]) -> Object | None:
    """The choice of a chunk that counts; some chunks have none."""
    return next((c for c in chunk.get("choices") or [] if c.get("index", 0) == 0), None)
