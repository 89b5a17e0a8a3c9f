"""What every request to a reasoner must hold, whatever an agent sent.

Used by agents.py. It measures nothing by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any


def problems(body: Mapping[str, Any]) -> list[str]:
    """What is wrong with a request, in words."""
    messages = body["messages"]
    found = [*_pairing(messages), *_arguments(messages)]
    if "x-anthropic-billing-header" in json.dumps(messages):
        found.append("a line that changes with every request is in it")
    if any(message["role"] == "developer" for message in messages):
        found.append("a role that templates don't know is in it")
    turns = [m["role"] for m in messages if m["role"] in ("user", "assistant")]
    # Templates that want turns to alternate don't count calls and their results.
    said = [(i, m) for i, m in enumerate(messages) if m["role"] != "tool" and not calls_of(m)]
    for (i, before), (_, after) in pairwise(said):
        if before["role"] == after["role"] == "assistant":
            found.append(f"two answers follow each other, from message {i} on")
    if turns and turns[0] != "user":
        found.append("it begins with an answer")
    return found


def calls_of(message: Mapping[str, Any]) -> Sequence[Any]:
    """The calls of a message."""
    return message.get("tool_calls") or ()


def _pairing(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Calls without their results right after them, and results without their calls."""
    found = []
    waiting: list[str] = []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] in waiting:
                waiting.remove(message["tool_call_id"])
            else:
                found.append(f"the result in message {index} has no call")
            continue
        if waiting:
            found.append(f"a call before message {index} has no result")
        waiting = [call["id"] for call in calls_of(message)]
        if len(set(waiting)) < len(waiting):
            found.append(f"two calls of message {index} have one id")
    return [*found, *(["the last call has no result"] if waiting else [])]


def _arguments(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Calls whose arguments are no JSON object."""
    found = []
    for index, message in enumerate(messages):
        for call in calls_of(message):
            given = call["function"]["arguments"]
            try:
                parsed = json.loads(given) if isinstance(given, str) else given
            except ValueError:
                parsed = None
            if not isinstance(parsed, dict):
                found.append(f"the arguments of a call in message {index} are no object")
    return found


def unchanged(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """The share of a request's messages that the next one begins with, unchanged."""
    old, new = before["messages"], after["messages"]
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    return same / len(old)
