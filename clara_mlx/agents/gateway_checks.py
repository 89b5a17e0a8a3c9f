"""Checks a running gateway by real requests: each API, a tool round, a compaction, an MCP call.

All conversations are one session that nobody else has. At the end it is undone and forgotten, so
that nothing of it stays in the memory.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.agents.asking import Answered, Unreachable, ask, ask_models
from clara_mlx.agents.finding import Finding, note, ok, wrong
from clara_mlx.errors import ClaraError

# Seconds for an answer of the reasoner: it may have to load, and to read what it is sent.
_ANSWER_SECONDS = 300.0

# Tokens of an answer; a reasoner that thinks first needs some.
_TOKENS = 256

# Seconds in which what was remembered in the background arrives and is forgotten.
_FORGET_SECONDS = 5.0
_FORGET_PAUSE = 0.3

_QUESTION = "Answer with one word: ready."

_TOOL = {
    "name": "read_word",
    "description": "Gives the word of the day.",
    "parameters": {"type": "object", "properties": {"day": {"type": "string"}}},
}

_TASK = "Use the tool read_word to get the word of the day Monday, then tell me the word."

# Lines of the outputs that are compacted: more than a block has, and few for a reasoner to read.
_LINES = 120


@dataclass
class Patient:
    """The gateway that is checked.

    Attributes:
        url, token: How it is reached.
        full: Whether to fill the window once, which can take minutes.
        session: The name of the conversations of the checks.
        model: The model's name, when it is known.
        window: Tokens of its window, when it is known.
        served: The APIs that have answered.
    """

    url: str
    token: str | None = None
    full: bool = False
    session: str = field(default_factory=lambda: f"doctor-{uuid.uuid4()}")
    model: str = ""
    window: int = 0
    served: list[str] = field(default_factory=list)

    def ask(self, path: str, body: Any = None, **headers: str) -> Answered:
        """Send a request of the session."""
        given = {"x-clara-session": self.session, **headers}
        return ask(self.url, path, self.token, body, headers=given, seconds=_ANSWER_SECONDS)


def check_gateway(patient: Patient) -> Iterator[Finding]:
    """All checks of a gateway, one after the other; what was remembered is forgotten again."""
    try:
        patient.model, window = ask_models(patient.url, patient.token)
    except Unreachable as error:
        yield wrong(
            "gateway", str(error), "start it with `clara-mlx serve`, or name it with --endpoint"
        )
        return
    except ClaraError as error:
        yield wrong("gateway", str(error), "name the token that `clara-mlx serve` was given")
        return
    patient.window = window or 0
    yield ok("gateway", f"{patient.url} answers; its model is {patient.model}")
    checks = (_chat, _messages, _responses, _tool_round, _template, _compaction, _window, _mcp)
    try:
        for check in checks:
            try:
                yield from check(patient)
            except Unreachable as error:
                name = check.__name__.strip("_").replace("_", " ")
                yield wrong(name, str(error), "look into the gateway's log")
    finally:
        left = _forget(patient)
    yield (
        ok("traces of this check", "forgotten")
        if not left
        else note("traces of this check", left, f"clara-mlx forget --session {patient.session}")
    )


def _chat(patient: Patient) -> Iterator[Finding]:
    body = _chat_body(patient, [{"role": "user", "content": _QUESTION}])
    yield _api(patient, "chat completions", "/v1/chat/completions", body)


def _messages(patient: Patient) -> Iterator[Finding]:
    body = {
        "model": patient.model,
        "max_tokens": _TOKENS,
        "messages": [{"role": "user", "content": _QUESTION}],
    }
    yield _api(patient, "messages (Claude Code)", "/v1/messages", body)


def _responses(patient: Patient) -> Iterator[Finding]:
    body = {"model": patient.model, "input": _QUESTION, "max_output_tokens": _TOKENS}
    yield _api(patient, "responses (Codex)", "/v1/responses", body)


def _api(patient: Patient, name: str, path: str, body: dict[str, Any]) -> Finding:
    begun = time.monotonic()
    answered = patient.ask(path, body, **{"anthropic-version": "2023-06-01"})
    taken = time.monotonic() - begun
    if answered.status == 404:
        return note(name, "this gateway does not serve it", "update clara-mlx, and start it again")
    if answered.status != 200:
        return wrong(name, f"{answered.status}: {answered.error}", _remedy(answered))
    patient.served.append(name)
    by = answered.headers.get("x-clara-served-by", "reasoner")
    if by != "reasoner":
        why = answered.headers.get("x-clara-fallback-reason", "no reason was given")
        return note(name, f"the {by} answered ({why})", "start the reasoner, or look into its log")
    return ok(name, f"answered in {taken:.1f} s")


def _remedy(answered: Answered) -> str:
    """What to do about an answer that is an error."""
    if answered.status in (502, 503, 504):
        return "start the reasoner, or name it: `clara-mlx serve --endpoint URL`"
    if answered.status in (401, 403):
        return "give the gateway's token with --token"
    return "the reasoner refuses it: look into its log"


def _tool_round(patient: Patient) -> Iterator[Finding]:
    """Have the reasoner call a tool, and send the result; if it does not call, make the call."""
    history: list[dict[str, Any]] = [{"role": "user", "content": _TASK}]
    tools = [{"type": "function", "function": _TOOL}]
    answered = patient.ask("/v1/chat/completions", _chat_body(patient, history, tools=tools))
    if answered.status != 200:
        yield wrong("tool call", f"{answered.status}: {answered.error}", _remedy(answered))
        return
    calls = _message(answered).get("tool_calls") or []
    if calls:
        yield ok("tool call", f"the reasoner called {calls[0]['function']['name']}")
    else:
        yield note(
            "tool call",
            "the reasoner answered without calling the tool that it was told to call",
            "agents need a reasoner that calls tools, and a server that reads its calls",
        )
        calls = [_call("call_1", "{}")]
    history.append({"role": "assistant", "content": None, "tool_calls": calls})
    history += [
        {"role": "tool", "tool_call_id": one["id"], "content": "The word is heron."}
        for one in calls
    ]
    answered = patient.ask("/v1/chat/completions", _chat_body(patient, history, tools=tools))
    if answered.status == 200:
        yield ok("tool result", "the reasoner took it and went on")
    else:
        yield wrong("tool result", f"{answered.status}: {answered.error}", _remedy(answered))


def _template(patient: Patient) -> Iterator[Finding]:
    """Whether the reasoner's template takes what agents send: late instructions, users in a row."""
    said = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
    late = [
        {"role": "system", "content": "Be brief."},
        *said,
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": _QUESTION},
    ]
    in_a_row = [*said, {"role": "user", "content": "One more."}, late[-1]]
    for name, messages in (
        ("instructions amid a conversation", late),
        ("two messages of a user in a row", in_a_row),
    ):
        answered = patient.ask("/v1/chat/completions", _chat_body(patient, messages))
        if answered.status == 200:
            yield ok("template", f"takes {name}")
        else:
            yield wrong(
                "template",
                f"does not take {name} ({answered.status}: {answered.error})",
                "give `clara-mlx serve` the reasoner's folder with --tokenizer; what it refuses is "
                "then sent in another form",
            )


def _compaction(patient: Patient) -> Iterator[Finding]:
    """Have a conversation compacted as Codex asks for it, which needs no answer of the reasoner."""
    items: list[dict[str, Any]] = [{"role": "user", "content": "Which test fails?"}]
    for number in range(3):
        call = f"call_{number}"
        items += [
            {"type": "function_call", "call_id": call, "name": "run", "arguments": "{}"},
            {"type": "function_call_output", "call_id": call, "output": _output(number)},
        ]
    body = {"model": patient.model, "input": items}
    answered = patient.ask("/v1/responses/compact", body)
    if answered.status == 404:
        yield note("compaction", "this gateway does not offer it as a service")
        return
    data = answered.data
    output = data.get("output") if isinstance(data, dict) else None
    kinds = [one.get("type") for one in output or () if isinstance(one, dict)]
    if answered.status == 200 and kinds.count("compaction") == 1:
        yield ok("compaction", "a conversation was compacted, without a call to the reasoner")
    else:
        yield wrong(
            "compaction",
            f"{answered.status}: {answered.error}",
            "check the memory: `clara-mlx verify`; look into the gateway's log",
        )


def _window(patient: Patient) -> Iterator[Finding]:
    """What the gateway claims; with ``full``, whether the reasoner takes that much."""
    if not patient.window:
        yield note("window", "the gateway does not say its window")
        return
    if not patient.full:
        yield ok(
            "window",
            f"{patient.window:,} tokens, as the gateway was told; --full tries whether the "
            "reasoner takes them",
        )
        return
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Which test fails?"}]
    number = 0
    while sum(len(str(one)) for one in messages) < 5 * patient.window:  # 4 characters are a token
        call = _call(f"call_{number}", json.dumps({"run": number}))
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": _output(number)},
        ]
        number += 1
    messages.append({"role": "user", "content": _QUESTION})
    answered = patient.ask("/v1/chat/completions", _chat_body(patient, messages, max_tokens=16))
    sent = answered.headers.get("x-clara-tokens-sent", "?")
    if answered.status != 200:
        yield wrong(
            "window",
            f"a conversation longer than {patient.window:,} tokens: {answered.status}: "
            f"{answered.error}",
            "start `clara-mlx serve` with the --window that the reasoner's server really has",
        )
    elif answered.headers.get("x-clara-compacted", "0") == "0":
        yield wrong("window", "a conversation longer than it was not compacted", "report this")
    else:
        yield ok("window", f"a conversation longer than it was compacted to {sent} tokens")


def _mcp(patient: Patient) -> Iterator[Finding]:
    accept = {"accept": "application/json, text/event-stream"}
    first = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-03-26",
            "capabilities": {},
            "clientInfo": {"name": "clara-mlx doctor", "version": "1"},
        },
    }
    begun = patient.ask("/mcp", first, **accept)
    if begun.status != 200:
        yield wrong("MCP", f"{begun.status}: {begun.error}", "look into the gateway's log")
        return
    session = {"mcp-session-id": given} if (given := begun.headers.get("mcp-session-id")) else {}
    query = {"query": "doctor"}
    call = {"name": "recall", "arguments": query}
    body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
    answered = patient.ask("/mcp", body, **accept, **session)
    result = _rpc_result(answered)
    if answered.status == 200 and result is not None and not result.get("isError"):
        yield ok("MCP", "the memory's tools answer")
    else:
        yield wrong("MCP", f"{answered.status}: {answered.error}", "look into the gateway's log")


def _rpc_result(answered: Answered) -> dict[str, Any] | None:
    """The result of a JSON-RPC answer, which may come as one event of a stream."""
    data = answered.data
    if data is None:
        lines = [line[5:] for line in answered.body.splitlines() if line.startswith("data:")]
        try:
            data = json.loads(lines[-1]) if lines else None
        except ValueError:
            data = None
    result = data.get("result") if isinstance(data, dict) else None
    return result if isinstance(result, dict) else None


def _forget(patient: Patient) -> str:
    """Undo and forget the session; what is left of it, or why that is not known."""
    try:
        patient.ask("/v1/memory/undo", {"session": patient.session})
        end = time.monotonic() + _FORGET_SECONDS
        quiet = 0
        while quiet < 2 and time.monotonic() < end:
            where = {"where": {"session": patient.session}}
            answered = patient.ask("/v1/memory/forget", where)
            if answered.status != 200:
                return f"could not be forgotten ({answered.status}: {answered.error})"
            # Texts are remembered in the background, after the answer.
            quiet = quiet + 1 if answered.data == {"forgotten": 0} else 0
            time.sleep(_FORGET_PAUSE)
    except ClaraError as error:
        return f"could not be forgotten ({error})"
    return "" if quiet == 2 else "may still arrive in the background"


def _chat_body(patient: Patient, messages: list[Any], **more: Any) -> dict[str, Any]:
    given = {"model": patient.model, "messages": messages, "max_tokens": _TOKENS, "temperature": 0}
    return given | more


def _message(answered: Answered) -> dict[str, Any]:
    try:
        found = answered.data["choices"][0]["message"]
    except (LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _call(identifier: str, arguments: str) -> dict[str, Any]:
    function = {"name": _TOOL["name"], "arguments": arguments}
    return {"id": identifier, "type": "function", "function": function}


def _output(number: int) -> str:
    """The output of a tool, as long as those that are compacted."""
    lines = [f"tests/test_{number}.py::test_{line} PASSED" for line in range(_LINES)]
    return "\n".join([*lines, f"tests/test_{number}.py::test_last FAILED", "1 failed"])
