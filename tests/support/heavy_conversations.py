"""Conversations whose texts are long, as a process beside the gateway prepares them."""

from __future__ import annotations

import json

from clara_mlx.context.messages import Message


def long_output(number: int, lines: int = 400) -> str:
    return "\n".join(
        f"src/module_{number}/part_{n}.py:{n}: error: name{n * 7919 % 1009} is 1.{n}.{number}"
        for n in range(lines)
    )


def turn(number: int, output: str) -> list[Message]:
    """A call and its result; the id is as random as real ones are."""
    function = {"name": "run", "arguments": json.dumps({"command": f"make step{number} é"})}
    call = {"id": f"call_0123456789abcdef{number}", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": output},
    ]


def body_of(messages: list[Message]) -> bytes:
    return json.dumps({"messages": messages}).encode()
