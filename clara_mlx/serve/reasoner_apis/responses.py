"""A reasoner that speaks OpenAI's Responses: its answers and events as chat completions.

The types are those of the SDK `openai`. What is sent is in `responses_body`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clara_mlx.serve.reasoner_apis.api import (
    EventReader,
    NotAnAnswer,
    chunk_of,
    usage_of,
)
from clara_mlx.serve.reasoner_apis.responses_body import write_body
from clara_mlx.serve.reasoner_apis.thoughts import Thoughts
from clara_mlx.serve.reply import Object
from clara_mlx.serve.usage import stated_tokens

# Why a response is incomplete, in the words of chat completions.
_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}

# The events that end a stream, each with the whole response.
_LAST = frozenset(("response.completed", "response.incomplete"))

# The events with pieces of what is said, and the names that it has in a chat completion.
_SAID = {"response.output_text.delta": "content", "response.refusal.delta": "refusal"}

# Between the texts of two items: one is a comment on the work, the other its result.
_APART = "\n\n"

# The events with pieces of thoughts. A server that sends both kinds says the same in two ways.
_THOUGHT = frozenset(("response.reasoning_text.delta", "response.reasoning_summary_text.delta"))


class ResponsesReasoner:
    """OpenAI's Responses; see `api.ReasonerApi`."""

    path = "/responses"

    def __init__(self) -> None:
        self._thoughts = Thoughts()

    def headers(self, key: str | None) -> dict[str, str]:
        """A bearer token."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def body(self, payload: Mapping[str, Any]) -> Object:
        """See `write_body`."""
        return write_body(payload, self._thoughts)

    def completion(self, answer: Object) -> Object:
        """A response as a chat completion."""
        items = _items(answer)
        said = [_list(item) for item in items if item.get("type") == "message"]
        texts = ["".join(_text(part, "text") for part in parts) for parts in said]
        refusals = [_text(part, "refusal") for parts in said for part in parts]
        message: Object = {
            "role": "assistant",
            "content": _APART.join(text for text in texts if text) or None,
            "refusal": "".join(refusals) or None,
        }
        calls = [item for item in items if item.get("type") == "function_call"]
        if calls:
            message["tool_calls"] = [_call(item) for item in calls]
        if thought := _thought(items):
            message["reasoning_content"] = thought
            self._thoughts.keep(_encrypted(items), thought)
        choice = {"index": 0, "message": message, "finish_reason": _finish(answer, bool(calls))}
        usage = _usage(answer.get("usage"))
        return {**_about(answer), "choices": [choice]} | ({"usage": usage} if usage else {})

    def events(self) -> EventReader:
        """A reader of the events of one response."""
        return _ResponseReader(self._thoughts)

    def error_in(self, value: Object) -> Any:
        """The error that a response failed of, or that an event is."""
        if value.get("type") == "error":
            # Some servers put the fields into an object, as in other APIs.
            return value.get("error") or {n: value.get(n) for n in ("code", "message", "param")}
        response = value.get("response")
        whole = response if isinstance(response, dict) else value
        error = whole.get("error")
        return error or (whole.get("status") == "failed" and "no reason given") or None


class _ResponseReader:
    """Reads the events of one response."""

    def __init__(self, thoughts: Thoughts) -> None:
        self.finished = False
        self.is_over = False
        self._thoughts = thoughts
        self._about: Object = {}  # the response's id and model
        self._has_arguments: dict[Any, bool] = {}  # whether some have come, by a call's index
        self._said: set[Any] = set()  # the indices of messages of which a piece has come
        self._thought = ""
        self._thought_event: str | None = None  # the kind of event that thoughts come in

    def read(self, event: Object) -> list[Object]:
        """See `api.EventReader`."""
        kind = str(event.get("type"))
        index = event.get("output_index")
        index = index if isinstance(index, int) else None
        if kind in _SAID:
            return self._say(index, _SAID[kind], _text(event, "delta"))
        if kind in _THOUGHT:
            return self._add_thought(kind, _text(event, "delta"))
        if kind == "response.reasoning_summary_part.added" and self._thought:
            return self._add_thought("response.reasoning_summary_text.delta", _APART)
        if kind == "response.output_item.added":
            item = _item(event)
            if item.get("type") != "function_call":
                return []
            self._has_arguments[index] = False
            function = {"name": _text(item, "name"), "arguments": ""}
            return [self._call_chunk(index, function, id=_id(item))]
        if kind == "response.function_call_arguments.delta":
            return self._add_arguments(index, _text(event, "delta"))
        if kind == "response.function_call_arguments.done":
            return self._complete_arguments(index, _text(event, "arguments"))
        if kind == "response.output_item.done":
            return self._end_item(index, _item(event))
        if kind in _LAST:
            return self._end_response(event.get("response"))
        response = event.get("response")
        if isinstance(response, dict):
            self._about = _about(response)
        return []

    def end(self) -> list[Object]:
        """Nothing, if the last event has come."""
        if self.finished:
            return []
        self.finished = True
        return [self._chunk({}, "stop")]

    def _say(self, index: Any, name: str, piece: str) -> list[Object]:
        gap = _APART if self._said and index not in self._said else ""
        self._said.add(index)
        return [self._chunk({name: gap + piece})]

    def _add_thought(self, kind: str, piece: str) -> list[Object]:
        self._thought_event = self._thought_event or kind
        if kind != self._thought_event:
            return []
        self._thought += piece
        return [self._chunk({"reasoning_content": piece})]

    def _add_arguments(self, index: Any, piece: str) -> list[Object]:
        if index not in self._has_arguments:
            raise NotAnAnswer("adds to a call that has not begun")
        self._has_arguments[index] = True
        return [self._call_chunk(index, {"arguments": piece})]

    def _complete_arguments(self, index: Any, whole: str) -> list[Object]:
        """The arguments, if none of them have come in pieces."""
        if not whole or self._has_arguments.get(index):
            return []
        return self._add_arguments(index, whole)

    def _end_item(self, index: Any, item: Object) -> list[Object]:
        """What an item says that has not come in pieces."""
        kind = item.get("type")
        if kind == "function_call":
            begun: list[Object] = []
            if index not in self._has_arguments:
                begun = self.read(
                    {"type": "response.output_item.added", "output_index": index, "item": item}
                )
            return begun + self._complete_arguments(index, _text(item, "arguments"))
        if kind == "message" and index not in self._said:
            texts = [("content", _text(part, "text")) for part in _list(item)]
            texts += [("refusal", _text(part, "refusal")) for part in _list(item)]
            return [one for name, text in texts if text for one in self._say(index, name, text)]
        if kind == "reasoning" and not self._thought and (thought := _thought([item])):
            return self._add_thought("response.output_item.done", thought)
        return []

    def _end_response(self, response: Any) -> list[Object]:
        self.finished = self.is_over = True
        if not isinstance(response, dict):
            return [self._chunk({}, "stop")]
        self._thoughts.keep(_encrypted(_list(response, "output")), self._thought)
        last = self._chunk({}, _finish(response, bool(self._has_arguments)))
        usage = _usage(response.get("usage"))
        return [{**last, "usage": usage} if usage else last]

    def _chunk(self, delta: Object, finish: str | None = None) -> Object:
        return chunk_of(delta, finish, **self._about)

    def _call_chunk(self, index: Any, function: Object, **more: Any) -> Object:
        return self._chunk({"tool_calls": [{"index": index, "function": function, **more}]})


def _items(answer: Object) -> list[Object]:
    items = answer.get("output")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise NotAnAnswer("is not a response")
    return items


def _item(event: Object) -> Object:
    item = event.get("item")
    if not isinstance(item, dict):
        raise NotAnAnswer("has no item")
    return item


def _about(response: Mapping[str, Any]) -> Object:
    return {name: response[name] for name in ("id", "model") if response.get(name)}


def _list(item: Mapping[str, Any], name: str = "content") -> list[Object]:
    parts = item.get(name)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _thought(items: list[Object]) -> str:
    """What reasoning items say: their texts, or else their summaries."""
    found = [item for item in items if item.get("type") == "reasoning"]
    for name in ("content", "summary"):
        texts = [_text(part, "text") for item in found for part in _list(item, name)]
        if any(texts):
            return _APART.join(text for text in texts if text)
    return ""


def _encrypted(items: list[Object]) -> list[Object]:
    """The reasoning items that may be sent back; the others mean nothing to a server that has not
    stored them.
    """
    fields = ("type", "id", "summary", "encrypted_content")
    return [
        {name: item[name] for name in fields if name in item}
        for item in items
        if item.get("type") == "reasoning" and item.get("encrypted_content")
    ]


def _id(item: Object) -> Any:
    return item.get("call_id") or item.get("id")


def _call(item: Object) -> Object:
    function = {"name": _text(item, "name"), "arguments": _text(item, "arguments")}
    return {"id": _id(item), "type": "function", "function": function}


def _usage(given: Any) -> Object | None:
    if not isinstance(given, dict):
        return None
    details = given.get("input_tokens_details")
    cached = stated_tokens(details, "cached_tokens") if isinstance(details, dict) else 0
    return usage_of(
        stated_tokens(given, "input_tokens"), stated_tokens(given, "output_tokens"), cached
    )


def _finish(response: Object, has_calls: bool) -> str:
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return _FINISH.get(str(reason)) or ("tool_calls" if has_calls else "stop")


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    return text if isinstance(text, str) else ""
