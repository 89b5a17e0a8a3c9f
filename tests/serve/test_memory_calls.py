"""Compaction and the memory's tools behind an ordinary chat API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway import Gateway, Upstream, chunk, gateway, says, stream_of, text_of

from clara_mlx.context import Budget
from clara_mlx.context.tools import SCHEMAS
from clara_mlx.errors import StoreError

TOOL = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}
NAMES = {tool["function"]["name"] for tool in SCHEMAS}
LINES = [f"tests/test_io.py::test_{n} PASSED in 0.{n:03d}s" for n in range(120)]
LONG = "\n".join([*LINES[:70], "E   KeyError: 'colour_7f3a'", *LINES[70:]])


def tool_turns(count: int) -> list[dict[str, Any]]:
    """A conversation with tool results, each different and long."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You fix tests."},
        {"role": "user", "content": "Make the tests pass."},
    ]
    for number in range(count):
        function = {"name": "run", "arguments": json.dumps({"command": f"pytest -k {number}"})}
        call = {"id": f"call-{number}", "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": f"run {number}\n{LONG}"},
        ]
    return messages


@pytest.fixture
def upstream() -> Upstream:
    return Upstream(says("ok"))


@pytest.fixture
def gate(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    budget = Budget(window=16_000, reserve=1000, trigger=0.7, target=0.4)
    with upstream.running() as url, gateway(tmp_path, url, budget=budget) as made:
        yield made


@pytest.fixture
def in_place(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    """A gateway that sends no folds."""
    budget = Budget(window=16_000, reserve=1000, fold=False)
    with upstream.running() as url, gateway(tmp_path, url, budget=budget) as made:
        yield made


@pytest.fixture
def opened(tmp_path: Path, upstream: Upstream) -> Iterator[Gateway]:
    """A gateway whose conversations see the whole memory."""
    budget = Budget(window=16_000, reserve=1000, trigger=0.7, target=0.4)
    with (
        upstream.running() as url,
        gateway(tmp_path, url, budget=budget, everything=True) as made,
    ):
        yield made


def test_a_long_conversation_is_compacted_once_and_stays_so(
    in_place: Gateway, upstream: Upstream
) -> None:
    gate = in_place
    messages = tool_turns(10)
    first = gate.chat(messages, tools=[TOOL])
    assert int(first.headers["x-clara-tokens-in"]) > 16_000
    sent = int(first.headers["x-clara-tokens-sent"])
    assert sent < 0.5 * int(first.headers["x-clara-tokens-in"])
    assert int(first.headers["x-clara-compacted"]) > 0
    got = upstream.requests[0]["messages"]
    assert [m["role"] for m in got] == [m["role"] for m in messages]
    assert got[0] == messages[0] and got[-1] == messages[-1]
    # The next turn starts with the very bytes of this one.
    messages += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "more"}]
    second = gate.chat(messages, tools=[TOOL])
    again = upstream.requests[1]
    assert again["messages"][: len(got)] == got
    assert again["tools"] == upstream.requests[0]["tools"]
    assert int(second.headers["x-clara-compacted"]) == 0
    assert int(second.headers["x-clara-cached-expected"]) > 0.9 * sent
    # Every handle in what was sent gives its original back.
    status = gate.status(first.headers["x-clara-session"])
    (conversation,) = status["conversations"]
    assert conversation["compactions"] == 1 and conversation["requests"] == 2
    assert conversation["tokens_in"] > conversation["tokens_sent"] == 200  # as upstream counted
    originals = [m["content"] for m in messages if m["role"] == "tool"]
    for handle in conversation["compacted"]:
        assert gate.http.get(f"/v1/memory/original/{handle}").text in originals


def test_a_restart_changes_nothing(tmp_path: Path, upstream: Upstream) -> None:
    budget = Budget(window=16_000, reserve=1000, trigger=0.7, target=0.4)
    for _ in range(2):
        with upstream.running() as url, gateway(tmp_path, url, budget=budget) as gate:
            gate.chat(tool_turns(8), tools=[TOOL])
    assert upstream.requests[0] == upstream.requests[1]


def test_what_can_not_fit_is_an_overflow_that_clients_know(
    gate: Gateway, upstream: Upstream
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        gate.chat("word " * 40_000)
    assert error.value.code == "context_length_exceeded"
    assert "maximum context length is 16000 tokens" in str(error.value)
    assert "Please reduce the length of the messages" in str(error.value)
    assert not upstream.requests


def test_an_overflow_by_the_tools_alone_says_so(gate: Gateway, upstream: Upstream) -> None:
    about = "Does this and that with many words, and says so at length. " * 50
    functions = [{"name": f"tool_{number}", "description": about} for number in range(40)]
    tools: Any = [{"type": "function", "function": function} for function in functions]
    with pytest.raises(openai.BadRequestError, match="of which the tools alone take") as error:
        gate.chat("hi", tools=tools)
    assert "Please offer fewer tools, or serve a larger window (--window)" in str(error.value)


@pytest.mark.parametrize("stream", [False, True])
def test_the_memory_is_asked_behind_the_clients_back(
    opened: Gateway, upstream: Upstream, stream: bool
) -> None:
    handle = opened.memory.remember(LONG, source="pytest")
    asks = says("Let me look.", ("expand", {"handle": handle, "find": "KeyError"}))
    upstream.replies = [asks, says("It was colour_7f3a."), says("bye")]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Which key?"}]
    if stream:
        chunks = opened.streamed(messages, tools=[TOOL], stream_options={"include_usage": True})
        text = text_of(chunks)
        assert not any(c.choices[0].delta.tool_calls for c in chunks if c.choices)
        assert len([c for c in chunks if c.choices and c.choices[0].finish_reason]) == 1
        assert len([c for c in chunks if c.usage]) == 1
    else:
        answer = opened.chat(messages, tools=[TOOL])
        text = answer.choices[0].message.content
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].finish_reason == "stop"
    assert text == "Let me look.\n\nIt was colour_7f3a."
    first, second = upstream.requests
    assert NAMES | {"run"} == {t["function"]["name"] for t in first["tools"]}
    assert second["messages"][:1] == first["messages"]
    call, result = second["messages"][1:]
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    assert "E   KeyError: 'colour_7f3a'" in result["content"]
    # The next request shows the reasoner what it read, though the client never saw it.
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "thanks"}]
    opened.chat(messages, tools=[TOOL])
    third = upstream.requests[2]["messages"]
    assert third[:3] == second["messages"]
    assert third[3] == {"role": "assistant", "content": "It was colour_7f3a."}
    assert third[4]["content"] == "thanks"
    # Forgetting takes the quotes along.
    opened.http.post("/v1/memory/forget", json={"handle": handle})
    opened.chat([*messages, {"role": "user", "content": "and?"}], tools=[TOOL])
    assert "KeyError" not in json.dumps(upstream.requests[3])


def test_recalled_text_is_not_remembered_as_new(opened: Gateway, upstream: Upstream) -> None:
    handle = opened.memory.remember(LONG)
    upstream.replies = [says("", ("expand", {"handle": handle})), says("fine")]
    answer = opened.chat("look", tools=[TOOL])
    messages = [{"role": "user", "content": "look"}, {"role": "assistant", "content": "fine"}]
    assert answer.choices[0].message.content == "fine"
    opened.chat([*messages, {"role": "user", "content": "and on"}], tools=[TOOL])
    assert opened.status()["memory"]["memories"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_the_client_and_of_the_memory_in_one_answer(
    opened: Gateway, upstream: Upstream, stream: bool
) -> None:
    handle = opened.memory.remember(LONG)
    both = says("", ("expand", {"handle": handle, "lines": 2}), ("run", {"command": "ls"}))
    upstream.replies = [both, says("done")]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    if stream:
        with opened.client.chat.completions.stream(
            model="m", messages=messages, tools=[TOOL]
        ) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = opened.chat(messages, tools=[TOOL]).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "run"
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump(exclude={"index"})]},
        {"role": "tool", "tool_call_id": call.id, "content": "a b c"},
    ]
    opened.chat(messages, tools=[TOOL])
    sent = upstream.requests[1]["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool"]
    assert [c["function"]["name"] for c in sent[1]["tool_calls"]] == ["expand", "run"]
    assert [m["tool_call_id"] for m in sent[2:]] == [c["id"] for c in sent[1]["tool_calls"]]
    assert LINES[1] in sent[2]["content"] and sent[3]["content"] == "a b c"


def test_a_reasoner_that_only_asks_must_answer_in_the_end(
    gate: Gateway, upstream: Upstream
) -> None:
    """In the last round it is offered none of the memory's tools."""
    asks = says("", ("expand", {"handle": "m-0000000000"}))

    async def reply(body: dict[str, Any]) -> Any:
        names = {tool["function"]["name"] for tool in body.get("tools", ())}
        return await (asks if names & NAMES else says("I don't know."))(body)

    upstream.replies = [reply]
    assert gate.chat("go", tools=[TOOL]).choices[0].message.content == "I don't know."
    assert len(upstream.requests) == 6
    assert [tool["function"]["name"] for tool in upstream.requests[-1]["tools"]] == ["run"]
    always = {"tool_choice": "auto", "parallel_tool_calls": True}
    assert text_of(gate.streamed("on", tools=[TOOL], **always)) == "I don't know."


def test_memory_calls_are_bounded(gate: Gateway, upstream: Upstream) -> None:
    upstream.replies = [says("", ("expand", {"handle": "m-0000000000"}))]
    with pytest.raises(openai.InternalServerError) as error:
        gate.chat("go", tools=[TOOL])
    assert error.value.code == "no_answer"
    assert len(upstream.requests) == 6  # four are answered, the fifth is refused
    results = [m["content"] for m in upstream.requests[-1]["messages"] if m["role"] == "tool"]
    assert "no memory" in results[0] or "failed" in results[0]
    assert results[1] == "This call was answered above." and "often enough" in results[-1]


def test_a_result_that_does_not_fit_is_withdrawn(tmp_path: Path, upstream: Upstream) -> None:
    budget = Budget(window=3000, reserve=500)
    with (
        upstream.running() as url,
        gateway(tmp_path, url, budget=budget, everything=True) as gate,
    ):
        handle = gate.memory.remember(
            "\n".join(f"line {n} of many, {n} times as long" * 2 for n in range(4000))
        )
        upstream.replies = [says("", ("expand", {"handle": handle})), says("I see")]
        assert gate.chat("go", tools=[TOOL]).choices[0].message.content == "I see"
    assert "does not fit" in upstream.requests[1]["messages"][-1]["content"]


def test_a_client_with_a_tool_of_that_name_answers_it(gate: Gateway, upstream: Upstream) -> None:
    own = {"type": "function", "function": {"name": "expand"}}
    upstream.replies = [says("", ("expand", {"handle": "x"}))]
    answer = gate.chat("go", tools=[own])
    assert answer.choices[0].message.tool_calls[0].function.name == "expand"
    names = [t["function"]["name"] for t in upstream.requests[0]["tools"]]
    assert names == ["ask_memory", "expand"]


def test_without_tools_of_the_client_ours_come_with_the_first_block(
    gate: Gateway, upstream: Upstream
) -> None:
    talk: list[dict[str, Any]] = [{"role": "user", "content": "read this"}]
    for number in range(8):
        talk += [
            {"role": "assistant", "content": f"{number}: {LONG}"},
            {"role": "user", "content": "next"},
        ]
    gate.chat(talk[:3])
    assert "tools" not in upstream.requests[0]
    answer = gate.chat(talk)
    assert {t["function"]["name"] for t in upstream.requests[1]["tools"]} == NAMES
    # The compaction counts, although the prompt was made a second time, with the tools.
    assert int(answer.headers["x-clara-compacted"]) > 0
    (conversation,) = gate.status(answer.headers["x-clara-session"])["conversations"]
    assert conversation["compactions"] == 1 and conversation["compacted"]


def test_the_reasoner_sees_its_own_conversation_only(gate: Gateway, upstream: Upstream) -> None:
    gate.memory.remember("the password of the other project is hunter2", session="other")
    gate.memory.remember("the door code of this project is 4711", session="mine")
    upstream.replies = [says("", ("ask_memory", {"question": "project code password"})), says("k")]
    gate.chat("go", tools=[TOOL], extra_headers={"x-clara-session": "mine"})
    result = upstream.requests[1]["messages"][-1]["content"]
    assert "4711" in result and "hunter2" not in result


def test_conversations_are_remembered_before_they_are_compacted(
    gate: Gateway, upstream: Upstream
) -> None:
    talk = tool_turns(4)
    for length in (3, 4, 6, 4, 9, 10):  # also in the middle of a turn, and back again
        gate.chat(talk[:length], tools=[TOOL], extra_headers={"x-clara-session": "s"})
    found: dict[str, Any] = {}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        body = {"query": "colour_7f3a", "k": 20, "where": {"source": "run"}}
        hits = gate.http.post("/v1/memory/recall", json=body).json()["hits"]
        found = {hit["handle"]: hit["metadata"]["command"] for hit in hits}
        if len(found) == 4:
            break
    # Each once, with the call that it answers.
    assert sorted(found.values()) == [f"pytest -k {number}" for number in range(4)]
    # So are the task and the short texts of each step, twice while it had no result yet.
    assert gate.status()["memory"]["memories"] == 4 + 1 + 4 + 2
    assert all(hit["session"] == "s" for hit in hits)


def test_a_broken_memory_does_not_stop_the_agent(gate: Gateway, upstream: Upstream) -> None:
    gate.breaks = True

    def full(*_: Any, **__: Any) -> Any:
        raise StoreError("the disk is full")

    gate.memory.file.write = gate.memory.file.read = full  # type: ignore[method-assign]
    answer = gate.chat(tool_turns(1), tools=[TOOL])
    assert answer.choices[0].message.content == "ok"
    assert answer.headers["x-clara-memory"] == "unavailable"
    assert upstream.requests[0]["messages"] == tool_turns(1)


def test_a_call_in_pieces_is_held_back_until_its_name_is_known(
    opened: Gateway, upstream: Upstream
) -> None:
    handle = opened.memory.remember(LONG)

    async def pieces(body: dict[str, Any]) -> Any:
        arguments = json.dumps({"handle": handle})
        calls = [{"index": 0, "id": "x", "type": "function", "function": {"name": "expand"}}]
        calls += [{"index": 0, "function": {"arguments": part}} for part in arguments]
        return stream_of([*(chunk({"tool_calls": [c]}) for c in calls), chunk({}, "tool_calls")])

    upstream.replies = [pieces, says("read it")]
    chunks = opened.streamed("go", tools=[TOOL])
    assert text_of(chunks) == "read it"
    assert LINES[0] in upstream.requests[1]["messages"][-1]["content"]
