"""An agent that reads compressed passages and asks for the original of those that it must quote.

What is read as latents is near, not exact: names and numbers in it may come out wrong. So each
passage is labelled with its handle, which never changes, and the model has tools; calling `expand`
with a handle gives it the exact text. Answers of tools are appended, so nothing before them
changes, and with a `PrefixCache` only what is new is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from clara_mlx.compressors.lclm.lclm import Lclm
from clara_mlx.compressors.lclm.prefix import PrefixCache
from clara_mlx.compressors.lclm.regions import Message, Region
from clara_mlx.errors import ClaraError
from clara_mlx.model.generation import Sampling

#: Rounds of calls before the model has to answer; the published agent has as many.
ROUNDS = 5

SYSTEM = (
    "Some passages reach you compressed; a label in brackets, their handle, stands before each. "
    "Paths, numbers and names that you read in them may be wrong. Before you quote one, call "
    "expand with the passage's handle, which gives you its exact text."
)

_NO_MORE = "No more calls are possible. Answer with what you have read."

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"

#: Answers a call: the name of a tool and its arguments in, the text that the model reads out.
Call = Callable[[str, Mapping[str, Any]], str]


@dataclass(frozen=True)
class Conversation:
    """An answer, and the conversation up to and including it; calls and results are part of it."""

    text: str
    messages: list[Message]
    calls: int  # that were answered


def labelled(passages: Sequence[tuple[str, Region]]) -> list[str | Region]:
    """What a message holds of passages: the handle of each, and the passage, one a line."""
    return [part for handle, region in passages for part in (f"[{handle}] ", region, "\n")]


def converse(
    lclm: Lclm,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]],
    call: Call,
    *,
    rounds: int = ROUNDS,
    max_tokens: int = 512,
    prefix: PrefixCache | None = None,
    **sampling: Unpack[Sampling],
) -> Conversation:
    """Generate, answer the tools that the model calls, and go on until it answers.

    Args:
        lclm: The model.
        messages: The conversation so far; see `Lclm.generate`, `labelled` and `SYSTEM`.
        tools: Those of `clara_mlx.context.tools`, or any as chat completions have them.
        call: Answers a call. A ClaraError that it raises is told to the model.
        rounds: Rounds of calls at most; then the model is told to answer.
        max_tokens: Tokens of an answer, and of a round's calls, at most.
        prefix: What is kept between rounds; by default only for these.
        sampling: Options as mlx-lm names them.

    Raises:
        ClaraError: The conversation does not fit the decoder's window.
    """
    conversation = list(messages)
    prefix = prefix or PrefixCache()
    answered = 0
    for number in range(rounds + 1):
        # The tools stay in the prompt, which would otherwise be read again from its start.
        reply = lclm.generate(conversation, max_tokens, tools=tools, prefix=prefix, **sampling)
        asked = read_calls(reply)
        conversation.append(_assistant(reply, asked))
        if not asked or number == rounds:
            break
        for name, arguments in asked:
            answered += 1
            conversation.append({"role": "tool", "content": _answer(call, name, arguments)})
        if number == rounds - 1:
            conversation.append({"role": "user", "content": _NO_MORE})
    return Conversation(_without_calls(reply), conversation, answered)


def read_calls(reply: str) -> list[tuple[str, Mapping[str, Any] | None]]:
    """The calls in a reply, as Qwen3 writes them; arguments are None where they can't be read."""
    calls: list[tuple[str, Mapping[str, Any] | None]] = []
    for piece in reply.split(_OPEN)[1:]:
        try:
            written = json.loads(piece.partition(_CLOSE)[0])
            name, arguments = written["name"], written.get("arguments") or {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            calls.append(("", None))
            continue
        readable = isinstance(name, str) and isinstance(arguments, Mapping)
        calls.append((str(name), arguments if readable else None))
    return calls


def _assistant(reply: str, asked: Sequence[tuple[str, Mapping[str, Any] | None]]) -> Message:
    """A reply as a message, whose calls are rendered as the model wrote them: with their tokens."""
    if not asked or any(arguments is None for _, arguments in asked):
        return {"role": "assistant", "content": reply}
    calls = [{"function": {"name": name, "arguments": dict(a or {})}} for name, a in asked]
    return {"role": "assistant", "content": _without_calls(reply), "tool_calls": calls}


def _answer(call: Call, name: str, arguments: Mapping[str, Any] | None) -> str:
    if arguments is None:
        return 'this call can\'t be read; write {"name": ..., "arguments": {...}}'
    try:
        return call(name, arguments)
    except ClaraError as error:
        return f"{name} failed: {error}"


def _without_calls(reply: str) -> str:
    """What a reply says beside its calls."""
    first, *rest = reply.split(_OPEN)
    return "".join([first, *(piece.partition(_CLOSE)[2] for piece in rest)]).strip()
