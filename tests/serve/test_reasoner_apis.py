"""Reasoners that speak Messages or Responses: clients notice nothing of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway import Gateway, Upstream, fails, gateway, says, text_of
from reasoner_servers import (
    check_message_request,
    check_response_request,
    message,
    message_events,
    response,
    response_events,
    sends,
)
from starlette.responses import JSONResponse, Response

from clara_mlx.errors import ClaraError
from clara_mlx.serve import Remote
from clara_mlx.serve.reasoner_apis.messages import MessagesReasoner
from clara_mlx.serve.reasoner_apis.responses import ResponsesReasoner
from clara_mlx.serve.reply import Reply
from clara_mlx.serve.request import repair

TOOL = {
    "type": "function",
    "function": {"name": "run", "description": "Runs.", "parameters": {"type": "object"}},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
THOUGHT = "Let me think."
RUN = {"command": "ls -l"}

#: A conversation with everything that a client may send.
HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE]},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "run", "arguments": "{}"}},
            {"id": "2", "type": "function", "function": {"name": "run", "arguments": '{"x": '}},
        ],
    },
    {"role": "tool", "tool_call_id": "2", "content": ""},
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "shot"}, IMAGE]},
    {"role": "system", "content": "It is noon."},
    {"role": "user", "content": "and?"},
]


class Case:
    """A server of an API, as its official types have it."""

    def __init__(self, api: str) -> None:
        self.api = api
        self.is_messages = api == "messages"
        self.check = check_message_request if self.is_messages else check_response_request

    def thinks_and_calls(self, text: str = "I will look.") -> Any:
        """An answer with a thought, a text and a call."""
        if self.is_messages:
            blocks = [
                {"type": "thinking", "thinking": THOUGHT, "signature": "signed"},
                {"type": "text", "text": text},
                {"type": "tool_use", "id": "toolu_1", "name": "run", "input": RUN},
            ]
            made = message(blocks, "tool_use", cache_read_input_tokens=4, input_tokens=5)
            return sends(made, message_events(made))
        items: list[dict[str, Any]] = [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": THOUGHT}],
                "encrypted_content": "signed",
            },
            self._spoken({"type": "output_text", "text": text, "annotations": []}),
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "toolu_1",
                "name": "run",
                "arguments": '{"command": "ls -l"}',
            },
        ]
        made = response(items)
        return sends(made, response_events(made))

    def says(self, text: str, stop: str = "stop") -> Any:
        """An answer with a text; ``stop`` is how a chat completion says why it ended."""
        if self.is_messages:
            why = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}[stop]
            made = message([{"type": "text", "text": text}], why)
            return sends(made, message_events(made))
        why = {"length": "max_output_tokens"}.get(stop, stop)
        spoken = self._spoken({"type": "output_text", "text": text, "annotations": []})
        made = response([spoken], incomplete=None if stop == "stop" else why)
        return sends(made, response_events(made))

    def asks_its_memory(self) -> Any:
        """A call of `expand`, and nothing else."""
        if self.is_messages:
            call = {"handle": "m-0000000000"}
            blocks = [{"type": "tool_use", "id": "t", "name": "expand", "input": call}]
            made = message(blocks, "tool_use")
            return sends(made, message_events(made))
        item = {"type": "function_call", "id": "f", "call_id": "t", "name": "expand"}
        made = response([{**item, "arguments": '{"handle": "m-0000000000"}'}])
        return sends(made, response_events(made))

    def _spoken(self, part: dict[str, Any]) -> dict[str, Any]:
        own = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
        return {**own, "content": [part]}


@pytest.fixture(scope="module", params=["messages", "responses"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A case, the gateway in front of its server, and the server."""
    case, upstream = Case(request.param), Upstream(says())
    remote = {"api": case.api, "key": "the-key", "images": True, "model": "m"}
    path = tmp_path_factory.mktemp(case.api)
    with upstream.running() as url, gateway(path, url, remote=remote, failures=10**6) as gate:
        yield case, gate, upstream


Served = tuple[Case, Gateway, Upstream]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_comes_through_whole(served: Served, stream: bool) -> None:
    case, gate, upstream = served
    upstream.replies = [case.thinks_and_calls()]
    more: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]}
    if stream:
        more["stream_options"] = {"include_usage": True}
        with gate.client.chat.completions.stream(model="m", **more) as events:
            answer = events.get_final_completion()
    else:
        answer = gate.chat(more.pop("messages"), **more)
    (choice,) = answer.choices
    assert choice.message.content == "I will look." and choice.finish_reason == "tool_calls"
    assert choice.message.reasoning_content == THOUGHT
    (call,) = choice.message.tool_calls
    assert (call.id, call.function.name) == ("toolu_1", "run")
    assert call.function.arguments == '{"command": "ls -l"}'
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 5, 14)
    assert usage.prompt_tokens_details.cached_tokens == 4
    headers = upstream.headers[-1]
    if case.is_messages:
        assert headers["x-api-key"] == "the-key" and headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in headers
    else:
        assert headers["authorization"] == "Bearer the-key"


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_why_an_answer_ended(served: Served, reason: str) -> None:
    case, gate, upstream = served
    upstream.replies = [case.says("so far", reason)]
    assert gate.chat("hi").choices[0].finish_reason == reason
    chunks = gate.streamed("hi")
    assert text_of(chunks) == "so far" and chunks[-1].choices[0].finish_reason == reason


def test_what_is_sent_is_what_the_api_takes(served: Served) -> None:
    case, gate, upstream = served
    upstream.replies = [case.says("ok")]
    upstream.requests.clear()
    options = {"temperature": 1.5, "stop": "END", "tool_choice": "required", "max_tokens": 7}
    gate.chat(HISTORY, tools=[TOOL], seed=3, presence_penalty=1, **options)
    gate.chat([{"role": "assistant", "content": "I began."}, {"role": "user", "content": " "}])
    for sent in upstream.requests:
        case.check(sent)
        assert not {"seed", "presence_penalty"} & set(sent)
    sent = upstream.requests[0]
    written = str(sent)
    for text in ("Be brief.", "I look.", "look", "shot", "It is noon.", "and?", "AAAA", "_raw"):
        assert written.count(text) >= 1, text
    if case.is_messages:
        assert sent["system"] == "Be brief." and sent["stop_sequences"] == ["END"]
        assert sent["temperature"] == 1.0 and sent["max_tokens"] == 7
        image = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
        assert sent["messages"][0]["content"][1] == {"type": "image", "source": image}
    else:
        assert sent["instructions"] == "Be brief." and sent["max_output_tokens"] == 7
        assert {"role": "developer", "content": "It is noon."} in sent["input"]


def test_thoughts_are_sent_back_as_they_came(served: Served) -> None:
    case, gate, upstream = served
    upstream.replies = [case.thinks_and_calls(), case.says("done")]
    upstream.requests.clear()
    messages: list[dict[str, Any]] = [{"role": "user", "content": "think"}]
    said = gate.chat(messages, tools=[TOOL]).choices[0].message.model_dump(exclude_none=True)
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "a.txt"}
    gate.chat([*messages, said, result], tools=[TOOL])
    said["reasoning_content"] = said["reasoning"] = "Forged."
    gate.chat([*messages, said, result], tools=[TOOL])
    for sent in upstream.requests:
        case.check(sent)
    assert "signed" in str(upstream.requests[1]) and THOUGHT in str(upstream.requests[1])
    assert not any(word in str(upstream.requests[2]) for word in ("signed", "Forged"))


def test_the_memory_is_asked_and_the_last_round_has_none_of_its_tools(served: Served) -> None:
    case, gate, upstream = served
    upstream.replies = [case.asks_its_memory()] * 5 + [case.says("I don't know.")]
    upstream.requests.clear()
    assert text_of(gate.streamed("what do you remember?", tools=[TOOL])) == "I don't know."
    for sent in upstream.requests:
        case.check(sent)
    offered = [[tool["name"] for tool in sent["tools"]] for sent in upstream.requests]
    assert offered == [["ask_memory", "expand", "run"]] * 5 + [["run"]]


def test_two_messages_of_one_response_are_two_paragraphs() -> None:
    spoken = {"type": "message", "role": "assistant", "status": "completed"}
    parts = [[{"type": "output_text", "text": text, "annotations": []}] for text in ("Go", "Done")]
    made = response([{**spoken, "id": f"m{n}", "content": part} for n, part in enumerate(parts)])
    speaks, streamed, whole = ResponsesReasoner(), Reply(frozenset()), Reply(frozenset())
    whole.take_answer(speaks.completion(made))
    reader = speaks.events()
    for event in response_events(made):
        for one in reader.read(event):
            streamed.take_chunk(one)
    assert whole.content == streamed.content == "Go\n\nDone" and reader.is_over


def test_ids_of_other_servers_are_made_ids_of_this_api() -> None:
    call = {"id": "functions.run:0", "function": {"name": "run", "arguments": {}}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.run:0", "content": "y"},
    ]
    body = MessagesReasoner().body({"model": "m", "messages": messages, "tools": [TOOL]})
    check_message_request(body)
    assert body["messages"][1]["content"][0]["id"] == "functions_run_0"


def test_calls_without_tools_are_sent_with_tools_that_are_not_to_be_called() -> None:
    """Anthropic's API refuses calls in a conversation for which no tools are given."""
    body = MessagesReasoner().body({"model": "m", "messages": repair(HISTORY)})
    check_message_request(body)
    assert [tool["name"] for tool in body["tools"]] == ["run"]
    assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "seen"),
    [
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}, 400),
        (529, {"type": "overloaded_error", "message": "Overloaded"}, 503),
        (429, {"type": "rate_limit_error", "message": "slow down"}, 429),
        (401, {"type": "authentication_error", "message": "invalid x-api-key"}, 502),
        (400, {"type": "invalid_request_error", "message": "tools.0: bad"}, 400),
    ],
)
def test_errors_keep_their_meaning(
    served: Served, status: int, error: Any, seen: int, stream: bool
) -> None:
    _, gate, upstream = served
    ask = {"messages": [{"role": "user", "content": "x"}], "stream": stream}

    async def in_words(body: Any) -> Response:
        return JSONResponse({"type": "error", "error": error}, status)

    upstream.replies = [in_words]
    answer = gate.http.post("/v1/chat/completions", json=ask)
    assert answer.status_code == seen and error["message"] in answer.json()["error"]["message"]
    is_overflow = answer.json()["error"]["code"] == "context_length_exceeded"
    assert is_overflow == ("too long" in error["message"])


def test_errors_inside_a_stream(served: Served) -> None:
    case, gate, upstream = served
    if case.is_messages:
        error: Any = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
        events = message_events(message([{"type": "text", "text": "Half an"}]))[:-3]
    else:
        failed = response([], error={"code": "server_error", "message": "busy"}, status="failed")
        error = {"type": "response.failed", "response": failed, "sequence_number": 9}
        spoken = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
        part = {"type": "output_text", "text": "Half an", "annotations": []}
        events = response_events(response([{**spoken, "content": [part]}]))[:-2]
    for one in ([*events, error], [error]):
        upstream.replies = [sends({}, one)]
        with pytest.raises(openai.APIError, match="busy"):
            gate.streamed("hi")
    upstream.replies = [sends({}, events)]
    with pytest.raises(openai.APIError, match="broke off"):
        gate.streamed("hi")


def test_answers_of_another_api_are_errors(served: Served) -> None:
    _, gate, upstream = served
    for reply in (says("hi"), fails(404, None)):
        upstream.replies = [reply]
        with pytest.raises(openai.InternalServerError):
            gate.chat("hi")


def test_an_unknown_api_is_refused() -> None:
    with pytest.raises(ClaraError, match="one of chat, messages, responses; 'soap' is none"):
        Remote("http://127.0.0.1:8080", api="soap")  # type: ignore[arg-type]


def test_a_fallback_may_speak_another_api(tmp_path: Path) -> None:
    """It gets the reasoner's thoughts only if it can tell that they are its own."""
    case = Case("messages")
    local, cloud = Upstream(fails(500)), Upstream(case.says("cloud"))
    with ExitStack() as stack:
        urls = [stack.enter_context(up.running()) for up in (local, cloud)]
        gate = stack.enter_context(
            gateway(tmp_path, urls[0], fallback=urls[1], fallback_remote={"api": "messages"})
        )
        thought = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
        messages = [{"role": "user", "content": "x"}, thought, {"role": "user", "content": "y"}]
        assert gate.chat(messages).choices[0].message.content == "cloud"
    (sent,) = cloud.requests
    check_message_request(sent)
    kept = {"cache_control": {"type": "ephemeral"}}
    assert sent["messages"][-1]["content"] == [{"type": "text", "text": "y", **kept}]
    assert "hm" not in str(sent["messages"]) and sent["max_tokens"] > 1000


@pytest.mark.parametrize("api", ["messages", "responses"])
def test_a_gateway_in_front_of_a_gateway(tmp_path: Path, api: str) -> None:
    """Each of our own APIs is one that a reasoner may speak."""
    upstream = Upstream(says("Let me.", ("run", RUN), reasoning="hm"), says("Done."))
    with ExitStack() as stack:
        inner = stack.enter_context(
            gateway(tmp_path / "inner", stack.enter_context(upstream.running()), offer="never")
        )
        remote = {"api": api}
        outer = stack.enter_context(gateway(tmp_path / "outer", inner.url, remote=remote))
        messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
        with outer.client.chat.completions.stream(
            model="m", messages=messages, tools=[TOOL]
        ) as events:
            said = events.get_final_completion().choices[0].message
        assert said.content == "Let me." and said.tool_calls[0].function.name == "run"
        call = said.tool_calls[0]
        result = {"role": "tool", "tool_call_id": call.id, "content": "a.txt"}
        messages += [said.model_dump(exclude_none=True), result]
        last = outer.chat(messages, tools=[TOOL])
        assert last.choices[0].message.content == "Done." and last.usage.prompt_tokens == 100
    sent = upstream.requests[1]["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == '{"command": "ls -l"}'
