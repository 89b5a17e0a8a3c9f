"""The gateway's chat API: mends what local servers get wrong, and passes on the rest."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from gateway import Gateway, Upstream, chunk, fails, gateway, says, stream_of, text_of

TOOL = {
    "type": "function",
    "function": {"name": "run", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., tuple[Gateway, Upstream]]]:
    """A gateway in front of an upstream that replies as the test says."""
    open_now: list[Any] = []

    def make(*replies: Any, **settings: Any) -> tuple[Gateway, Upstream]:
        upstream = Upstream(*replies)
        serving = upstream.running()
        url = serving.__enter__()
        whole = gateway(tmp_path, url, **settings)
        open_now.extend([serving, whole])
        return whole.__enter__(), upstream

    yield make
    for one in reversed(open_now):
        one.__exit__(None, None, None)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Upstream]]:
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path_factory.mktemp("shared"), url) as gate:
        yield gate, upstream


@pytest.fixture
def plain(shared: tuple[Gateway, Upstream]) -> Callable[..., tuple[Gateway, Upstream]]:
    """The gateway with default settings, in front of an upstream that replies as the test says."""
    gate, upstream = shared

    def reply(*replies: Any) -> tuple[Gateway, Upstream]:
        upstream.requests.clear()
        upstream.replies = list(replies)
        return gate, upstream

    return reply


def test_an_answer_comes_through_whole(plain: Any) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    gate, upstream = plain(says("Hello \u2028 wörld", reasoning="hm", usage=usage))
    answer = gate.chat("hi", max_tokens=7, temperature=0.5, top_p=0.9, stop=["x"], seed=3)
    assert answer.choices[0].message.content == "Hello \u2028 wörld"
    assert answer.choices[0].message.reasoning == "hm"
    assert answer.choices[0].message.reasoning_content == "hm"
    assert answer.model == "reasoner" and answer.usage.total_tokens == 11
    (sent,) = upstream.requests
    assert sent["model"] == "default_model"  # another name would unload mlx's model
    assert sent["max_tokens"] == 7 and sent["stop"] == ["x"] and sent["seed"] == 3
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert "tools" not in sent  # untouched: nothing was compacted, no tools were given


def test_a_stream_comes_through_whole(plain: Any) -> None:
    gate, upstream = plain(says("Hello \u2028 wörld", reasoning="hm"))
    chunks = gate.streamed("hi", stream_options={"include_usage": True})
    assert text_of(chunks) == "Hello \u2028 wörld"
    assert next(c.choices[0].delta.role for c in chunks if c.choices) == "assistant"
    assert chunks[0].choices[0].delta.reasoning == "hm"
    assert chunks[0].choices[0].delta.reasoning_content == "hm"
    assert chunks[-1].choices == [] and chunks[-1].usage.prompt_tokens == 100
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({c.id for c in chunks}) == 1
    # A client that does not ask for the usage gets no chunk without choices; the gateway asks.
    assert all(c.choices for c in gate.streamed("hi", stream_options={}))
    assert [r["stream_options"] for r in upstream.requests] == 2 * [{"include_usage": True}]


def test_fields_are_normalised_for_the_local_server(plain: Any) -> None:
    gate, upstream = plain(says("ok"))
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi", "name": None},
        {"role": "assistant", "content": None, "reasoning": "thought", "refusal": None},
        {"role": "user", "content": "again"},
    ]
    body = {
        "model": None,
        "messages": messages,
        "max_tokens": None,
        "temperature": None,
        "n": 1,
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "tool_choice": "auto",
        "stop": None,
    }
    assert gate.http.post("/v1/chat/completions", json=body).status_code == 200
    (sent,) = upstream.requests
    assert sent["messages"] == [
        {"role": "system", "content": "be kind\n\nbe brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "reasoning_content": "thought"},
        {"role": "user", "content": "again"},
    ]
    ignored = {"n", "response_format", "tool_choice", "parallel_tool_calls", "temperature", "stop"}
    assert not ignored & set(sent)
    assert sent["max_tokens"] == 4096  # mlx's own default would cut answers at 512


def test_an_answer_never_asks_for_more_than_the_window(made: Any) -> None:
    from clara_mlx.context import Budget

    gate, upstream = made(says("ok"), budget=Budget(window=2000, reserve=500))
    gate.chat("hi " * 1000, max_tokens=100_000)
    assert 500 <= upstream.requests[0]["max_tokens"] < 1000


def test_a_server_that_obeys_gets_the_options(made: Any) -> None:
    gate, upstream = made(says("{}"), remote={"obeys": True, "model": "m"})
    form = {"type": "json_object"}
    gate.chat("hi", response_format=form, tool_choice="none", tools=[TOOL])
    (sent,) = upstream.requests
    assert sent["response_format"] == form and sent["tool_choice"] == "none"
    assert sent["model"] == "m" and "run" in {t["function"]["name"] for t in sent["tools"]}


def test_options_the_server_ignores_are_obeyed_or_refused(plain: Any) -> None:
    gate, upstream = plain(says("", ("run", {}), ("run", {"a": 1})))
    for refused in ({"n": 2}, {"response_format": {"type": "json_object"}}):
        with pytest.raises(openai.BadRequestError) as error:
            gate.chat("hi", **refused)
        assert error.value.param == next(iter(refused))
    gate.chat("hi", tools=[TOOL], tool_choice="none")
    assert "tools" not in upstream.requests[-1]
    gate.chat("hi", tools=[TOOL], tool_choice="required")
    assert "calling one of the tools" in upstream.requests[-1]["messages"][-1]["content"]
    named = {"type": "function", "function": {"name": "run"}}
    gate.chat("hi", tools=[TOOL], tool_choice=named)
    assert "calling the tool run" in upstream.requests[-1]["messages"][-1]["content"]
    one = gate.chat("hi", tools=[TOOL], parallel_tool_calls=False)
    assert len(one.choices[0].message.tool_calls) == 1
    chunks = gate.streamed("hi", tools=[TOOL], parallel_tool_calls=False)
    calls = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or ()]
    assert [call.index for call in calls] == [0]


def test_tools_are_sorted_and_ours_come_with_them(plain: Any) -> None:
    gate, upstream = plain(says("ok"))
    other = {"type": "function", "function": {"name": "aardvark"}}
    gate.chat("hi", tools=[TOOL, other])
    gate.chat("hi", tools=[other, TOOL])
    names = [[t["function"]["name"] for t in r["tools"]] for r in upstream.requests]
    assert names == 2 * [["aardvark", "ask_memory", "expand", "run"]]


def test_broken_histories_are_repaired(plain: Any) -> None:
    gate, upstream = plain(says("ok"))
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": "{}"}}
    other = {"id": "2", "type": "function", "function": {"name": "run", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "go"},
        {"role": "tool", "tool_call_id": "0", "content": "orphan"},
        {"role": "assistant", "content": "", "tool_calls": [call, other]},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
        {"role": "user", "content": "and?"},
    ]
    gate.chat(messages)
    sent = upstream.requests[0]["messages"]
    roles = ["user", "assistant", "tool", "assistant", "tool", "tool", "user"]
    assert [m["role"] for m in sent] == roles
    # What a tool said stays the tool's.
    assert sent[2]["content"] == "orphan" and sent[1]["tool_calls"][0]["id"] == "0"
    assert [m["tool_call_id"] for m in sent if m["role"] == "tool"] == ["0", "2", "1"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ('{"x": 1}', {"x": 1}),
        ('{"x": ', {"_raw": '{"x": '}),
        ("ls -l", {"_raw": "ls -l"}),
        ('"Bern"', {"_raw": '"Bern"'}),
        ("[1]", {"_raw": "[1]"}),
        ('{"x": NaN}', {"_raw": '{"x": NaN}'}),
        ({"x": 1}, {"x": 1}),
        ([1, 2], {"_raw": "[1, 2]"}),
        ("[" * 5_000, {"_raw": "[" * 5_000}),
        ("", {}),
        (" \n", {}),
        ("null", {}),
        (None, {}),
    ],
    ids=range(13),
)
def test_arguments_that_no_server_reads_do_not_end_a_conversation(
    plain: Any, given: Any, sent: dict[str, Any]
) -> None:
    gate, upstream = plain(says("ok"))
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": given}}
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "what?"},
    ]
    answer = gate.http.post("/v1/chat/completions", json={"messages": messages})
    assert answer.status_code == 200
    (call_sent,) = upstream.requests[0]["messages"][1]["tool_calls"]
    assert json.loads(call_sent["function"]["arguments"]) == sent


def test_a_call_that_was_cut_off_goes_to_the_client_as_it_is(plain: Any) -> None:
    gate, _ = plain(says("", ("run", '{"x": '), finish="length"))
    (call,) = gate.chat("go", tools=[TOOL]).choices[0].message.tool_calls
    assert call.function.arguments == '{"x": '


@pytest.mark.parametrize("given", ['{"handle": "m-1', "not json at all", '"m-1"', " "])
@pytest.mark.parametrize("stream", [False, True])
def test_the_reasoners_own_call_to_the_memory_may_be_cut_off(
    plain: Any, given: str, stream: bool
) -> None:
    gate, upstream = plain(says("", ("expand", given)), says("fine"))
    messages = [{"role": "user", "content": f"go {given}"}]
    if stream:
        assert text_of(gate.streamed(messages, tools=[TOOL])) == "fine"
    else:
        assert gate.chat(messages, tools=[TOOL]).choices[0].message.content == "fine"
    (call,) = upstream.requests[1]["messages"][1]["tool_calls"]
    sent = json.loads(call["function"]["arguments"])
    assert sent == ({"_raw": given} if given.strip() else {})
    messages += [{"role": "assistant", "content": "fine"}, {"role": "user", "content": "more"}]
    gate.chat(messages, tools=[TOOL])
    # The hidden round was found again: the reasoner's prefix is the same.
    assert upstream.requests[2]["messages"][:3] == upstream.requests[1]["messages"]


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_of_odd_servers_become_regular(plain: Any, stream: bool) -> None:
    async def odd(body: dict[str, Any]) -> Any:
        first = {"id": "a", "function": {"name": "run", "arguments": '{"x"'}}
        rest = {"function": {"arguments": ": 1}"}}  # no index, no id
        second = {"id": "a", "index": 7, "function": {"name": "run", "arguments": {"y": 2}}}
        deltas = [{"tool_calls": [call]} for call in (first, rest, second)]
        return stream_of([*map(chunk, deltas), chunk({}, "stop")])

    calls = (("run", '{"x": 1}'), ("run", '{"y": 2}'))
    gate, _ = plain(odd if stream else says("", *calls, finish="stop"))
    if stream:
        with gate.client.chat.completions.stream(
            model="m", messages=[{"role": "user", "content": "go"}], tools=[TOOL]
        ) as events:
            answer = events.get_final_completion()
    else:
        answer = gate.chat("go", tools=[TOOL])
    found = answer.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in found] == [{"x": 1}, {"y": 2}]
    assert len({call.id for call in found}) == 2
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_call_that_the_server_could_not_read_is_an_error(plain: Any) -> None:
    gate, _ = plain(says("", finish="tool_calls"))
    for options, retry in (({"temperature": 0}, "false"), ({}, "true")):
        with pytest.raises(openai.InternalServerError) as error:
            gate.chat("go", tools=[TOOL], **options)
        assert error.value.code == "no_answer"
        assert error.value.response.headers["x-should-retry"] == retry
    with pytest.raises(openai.APIError, match="can't be read"):
        gate.streamed("go", tools=[TOOL])
    gate, _ = plain(says("I will run it", finish="tool_calls"))
    assert gate.chat("go", tools=[TOOL]).choices[0].finish_reason == "stop"


def test_logprobs_have_every_field(plain: Any) -> None:
    async def reply(body: dict[str, Any]) -> Any:
        answer = await says("a")(body)
        content = json.loads(answer.body)
        top = {"id": 5, "token": "a", "logprob": -0.1}
        content["choices"][0]["logprobs"] = {
            "content": [{"id": 9, "logprob": -1.0}, {**top, "top_logprobs": [top]}]
        }
        from starlette.responses import JSONResponse

        return JSONResponse(content)

    gate, _ = plain(reply)
    found = gate.chat("hi", logprobs=True).choices[0].logprobs.content
    assert [entry.token for entry in found] == ["token_id:9", "a"]
    assert found[1].top_logprobs[0].token == "a" and found[0].bytes is None


def test_errors_have_one_shape(plain: Any) -> None:
    given = {"message": "bad", "type": "t", "param": "p", "code": "c"}
    too_long = "Requested tokens (5019) exceed context window of 4096"
    cases: list[tuple[int, Any, int, str | None]] = [
        (404, "Only 'text' content type is supported", 400, None),
        (400, given, 400, "c"),
        (400, too_long, 400, "context_length_exceeded"),
        (500, "boom", 502, "upstream_5xx"),
        (404, "generation thread died", 502, "upstream_5xx"),
        (401, "no key", 502, "upstream_key"),
        (429, "slow down", 429, None),
    ]
    for status, error, seen, code in cases:
        gate, _ = plain(fails(status, error, **{"retry-after": "7"}))
        for stream in (False, True):
            body = {"messages": [{"role": "user", "content": "x"}], "stream": stream}
            answer = gate.http.post("/v1/chat/completions", json=body)
            assert answer.status_code == seen
            found = answer.json()["error"]
            assert set(found) == {"message", "type", "param", "code"} and found["code"] == code
            retry = seen == 429 or code == "upstream_5xx"
            assert answer.headers["x-should-retry"] == str(retry).lower()
            assert retry == ("retry-after" in answer.headers)


def test_models(made: Any) -> None:
    gate, _ = made(says("ok"), name="qwen")
    (model,) = gate.client.models.list().data
    assert (model.id, model.owned_by, model.max_model_len) == ("qwen", "clara-mlx", 32768)
    assert gate.client.models.retrieve("qwen").id == "qwen"
    with pytest.raises(openai.NotFoundError):
        gate.client.models.retrieve("a/../b")


def test_silence_is_bridged_and_keepalives_are_passed_on(made: Any) -> None:
    answers = threading.Event()
    gate, _ = made(says("late", wait=answers), patience=0.05, keepalive=0.05)
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    lines: list[str] = []
    with gate.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        for line in filter(None, answer.iter_lines()):
            lines.append(line)
            if lines.count(": keepalive") == 3:
                answers.set()
    assert ": keepalive 1/2" in lines  # the server's own, with its progress
    assert lines[-1] == "data: [DONE]"


def test_a_late_error_is_one_event(made: Any) -> None:
    async def late(body: dict[str, Any]) -> Any:
        return stream_of([{"error": {"message": "it broke"}}], wait=0.1)

    gate, _ = made(late, patience=0.01)
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    answer = gate.http.post("/v1/chat/completions", json=body)
    events = [line for line in answer.text.split("\n") if line.startswith("data:")]
    assert len(events) == 1 and "it broke" in json.loads(events[0][5:])["error"]["message"]
    with pytest.raises(openai.APIError, match="it broke"):
        gate.streamed("x")


def test_a_session_name_must_fit_a_header(plain: Any) -> None:
    gate, _ = plain(says("ok"))
    assert (
        gate.chat("hi", extra_headers={"x-clara-session": "a/b:1"}).headers["x-clara-session"]
        == "a/b:1"
    )
    assert gate.chat("hi").headers["x-clara-session"].startswith("c-")
    with pytest.raises(openai.BadRequestError):
        gate.chat("hi", extra_headers={"x-clara-session": "a b"})


def test_requests_over_the_network_go_to_the_right_place(made: Any) -> None:
    gate, upstream = made(says("ok"), remote={"key": "the-reasoners-key"})
    gate.chat("hi")
    assert upstream.headers[0]["authorization"] == "Bearer the-reasoners-key"
    assert httpx2.get(f"{gate.url}/health").json() == {"status": "ok"}
