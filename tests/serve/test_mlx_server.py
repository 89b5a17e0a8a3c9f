"""The real programs together: mlx_lm.server, the gateway in front of it, the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import tiny_reasoner
from gateway import Gateway, gateway, text_of
from messages_api import client_of

from clara_mlx.context import Budget, ChatTemplate
from clara_mlx.context.tools import SCHEMAS

RUN = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}
ASKED = [{"role": "user", "content": "Which key?"}]
KEY = "KeyError: blue"
CALL = '<tool_call>{"name": "expand", "arguments": {"handle": "m-0"}}</tool_call>'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    """A reasoner that knows one thing: to look into m-0 when it is asked for the key."""
    function = {"name": "expand", "arguments": {"handle": "m-0"}}
    call = {"id": "x", "type": "function", "function": function}
    read: list[Any] = [
        *ASKED,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": f"[m-0 lines 1-1 of 1]\n{KEY}"},
    ]
    tools = sorted([*SCHEMAS, RUN], key=lambda tool: str(tool["function"]["name"]))
    learnt = [(ASKED, tools, CALL), (read, tools, "It was blue.")]
    path = tmp_path_factory.mktemp("reasoner") / "model"
    return tiny_reasoner.folder(path, golden / "tiny-base", learnt)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    with tiny_reasoner.served(model) as url:
        yield url


@pytest.fixture
def gate(tmp_path: Path, model: Path, server: str) -> Iterator[Gateway]:
    budget = Budget(window=4096, reserve=256)
    counter = ChatTemplate(model)
    with gateway(tmp_path, server, counter=counter, budget=budget, everything=True) as made:
        yield made


def cached(answer: Any) -> int:
    return int(answer.usage.prompt_tokens_details.cached_tokens)


@pytest.mark.parametrize("stream", [False, True])
def test_the_reasoner_asks_its_memory(gate: Gateway, stream: bool) -> None:
    gate.memory.remember(KEY, handle="m-0")
    if stream:
        options: Any = {"tools": [RUN], "stream_options": {"include_usage": True}}
        chunks = gate.streamed(ASKED, **options)
        text, usage = text_of(chunks), chunks[-1].usage
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    else:
        answer = gate.chat(ASKED, tools=[RUN])
        text, usage = answer.choices[0].message.content, answer.usage
    assert text.strip() == "It was blue."
    # The second round began with the first: the server had it all but the result.
    assert usage.prompt_tokens_details.cached_tokens > 0.5 * usage.prompt_tokens
    (figures,) = gate.status()["conversations"]
    assert figures["rounds"] == 2 and figures["memory_calls"] == 1
    # The next request brings the hidden round back, so the server has that, too.
    talk = [*ASKED, {"role": "assistant", "content": text}, {"role": "user", "content": "Thanks"}]
    later = gate.chat(talk, tools=[RUN], max_tokens=4)
    assert cached(later) >= usage.prompt_tokens
    assert int(later.headers["x-clara-cached-reported"]) == cached(later)


def test_another_client_asks_the_same_reasoner(gate: Gateway) -> None:
    gate.memory.remember(KEY, handle="m-0")
    client = client_of(gate)
    tools: Any = [{"name": "run", "input_schema": {"type": "object"}}]
    asked: Any = {"model": "any", "max_tokens": 99, "tools": tools}
    with client.messages.stream(**asked, messages=ASKED) as stream:
        streamed = stream.get_final_message()
    assert [block.text.strip() for block in streamed.content] == ["It was blue."]
    assert streamed.usage.cache_read_input_tokens > streamed.usage.input_tokens
    # The next request brings the hidden round back, so the server has that, too.
    said: Any = {"role": "assistant", "content": streamed.content}
    talk = [*ASKED, said, {"role": "user", "content": "Thanks"}]
    later = client.messages.create(**asked, messages=talk).usage
    assert later.cache_read_input_tokens >= (
        streamed.usage.cache_read_input_tokens + streamed.usage.input_tokens
    )
    # What is counted beforehand is what the server counts.
    plain: Any = {"model": "any", "system": "Be kind.", "messages": ASKED}
    counted = client.messages.count_tokens(**plain).input_tokens
    usage = client.messages.create(**plain, max_tokens=2).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


def test_a_client_of_responses_asks_the_same_reasoner(gate: Gateway) -> None:
    """The memory is asked in between, and its rounds are put back in the next request."""
    gate.memory.remember(KEY, handle="m-0")
    run: Any = {"type": "function", "name": "run", "parameters": {"type": "object"}}
    asked: Any = {"model": "any", "tools": [run], "temperature": 0}
    client: Any = gate.client.responses
    with client.stream(**asked, input=ASKED) as stream:
        first: Any = [event.type for event in stream] and stream.get_final_response()
    assert first.output_text.strip() == "It was blue." and first.status == "completed"
    said = [item.to_dict() for item in first.output]
    talk = [*ASKED, *said, {"role": "user", "content": "Sure?"}]
    later = client.create(**asked, input=talk, max_output_tokens=2).usage
    # The server had the whole of what came before, so nothing in it has changed.
    before = first.usage.input_tokens + first.usage.output_tokens
    assert later.input_tokens_details.cached_tokens >= 0.9 * before
    (figures,) = gate.status()["conversations"]
    assert figures["memory_calls"] == 1


def test_a_stream_says_what_an_answer_in_one_piece_says(gate: Gateway) -> None:
    question = "Tell me something"
    chunks = gate.streamed(question, max_tokens=12)
    whole = gate.chat(question, max_tokens=12)
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert whole.usage.completion_tokens <= 12 and whole.model == chunks[0].model == "reasoner"


def test_prompts_are_counted_exactly_and_prefixes_kept(
    tmp_path: Path, model: Path, server: str
) -> None:
    budget = Budget(window=4096, reserve=256)
    with gateway(
        tmp_path, server, counter=ChatTemplate(model), budget=budget, offer="never"
    ) as gate:
        converse_until_compacted(gate)


def converse_until_compacted(gate: Gateway) -> None:
    """Send an agent's conversation, turn by turn, and check what the server counts and caches."""
    output = "\n".join(f"tests/test_io.py::test_{n} PASSED" for n in range(20))
    talk: list[dict[str, Any]] = [{"role": "user", "content": "Run the tests."}]
    sent, peak = 0, 0
    compactions: list[int] = []
    for turn in range(18):
        function = {"name": "run", "arguments": json.dumps({"command": f"pytest -k {turn}"})}
        call = {"id": f"c{turn}", "type": "function", "function": function}
        talk += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{turn}", "content": f"{turn}\n{output}"},
        ]
        answer = gate.chat(talk, max_tokens=2, extra_headers={"x-clara-session": "s"})
        if answer.headers["x-clara-tokens-exact"] == "true":
            assert int(answer.headers["x-clara-tokens-sent"]) == answer.usage.prompt_tokens
        if int(answer.headers["x-clara-compacted"]):
            compactions.append(turn)
        elif turn:
            # All that was sent last time is still in the server's cache.
            assert cached(answer) >= sent
        assert abs(int(answer.headers["x-clara-cached-expected"]) - cached(answer)) < 0.3 * (
            answer.usage.prompt_tokens
        )
        sent = answer.usage.prompt_tokens
        peak = max(peak, sent)
    assert compactions and len(compactions) <= 3 and peak <= 4096 - 256
    (figures,) = gate.status("s")["conversations"]
    assert figures["peak_in"] > 4096 and figures["tokens_sent"] < 0.85 * figures["tokens_in"]
    assert figures["cached_reported"] > 0.5 * figures["tokens_sent"]


def tool_turns(count: int) -> list[dict[str, Any]]:
    """Turns of a user's message, a call, its result and a final answer; and one more message."""
    output = "\n".join(f"tests/test_io.py::test_{n} PASSED" for n in range(8))
    talk: list[dict[str, Any]] = []
    for turn in range(count):
        function = {"name": "run", "arguments": json.dumps({"command": f"pytest -k {turn}"})}
        call = {"id": f"c{turn:08}", "type": "function", "function": function}
        talk += [
            {"role": "user", "content": f"Run {turn}."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": f"{turn}\n{output}"},
            {"role": "assistant", "content": "done"},
        ]
    return [*talk, {"role": "user", "content": "And now?"}]


@pytest.mark.parametrize("exact", [True, False])
def test_a_template_that_wants_roles_to_alternate_refuses_nothing(
    tmp_path: Path, model: Path, server: str, exact: bool
) -> None:
    """Turns by turns, after a restart, and with folds in a form that it refuses."""
    counter = ChatTemplate(model) if exact else None
    budget = Budget(window=3600 if exact else 1500, reserve=64)

    def ask(gate: Gateway, count: int) -> int:
        asked = {"max_tokens": 1, "extra_headers": {"x-clara-session": "s"}}
        return int(gate.chat(tool_turns(count), **asked).headers["x-clara-compacted"])

    def running() -> Any:
        return gateway(tmp_path, server, counter=counter, budget=budget, offer="never")

    with running() as gate:
        assert any([ask(gate, count) for count in (4, 9, 13, 16)])
    with running() as gate:
        ask(gate, 17)
        refused = [*ASKED, *({"role": "assistant", "content": one} for one in "ab"), *ASKED]
        with pytest.raises(openai.BadRequestError):  # what is the client's own is left to it
            gate.chat(refused)
        with gate.memory.file.write() as connection:
            changed = connection.execute(
                "UPDATE edits SET part = 'fold' || substr(part, instr(part, '.')) "
                "WHERE part LIKE 'called.%'"
            ).rowcount
        assert changed
    with running() as gate:
        ask(gate, 17)
        ask(gate, 18)


def test_what_the_server_gets_wrong_is_right_here(gate: Gateway, server: str) -> None:
    def ask(url: str, **body: Any) -> httpx2.Response:
        messages = body.pop("messages", [{"role": "user", "content": "hi"}])
        body = {"messages": messages, "max_tokens": 2, **body}
        client = httpx2.Client(trust_env=False, timeout=60)
        return client.post(f"{url}/chat/completions", json=body)

    ours = f"{gate.url}/v1"
    assert ask(server, temperature=None).status_code == 400  # what mlx_lm.server does
    assert ask(ours, temperature=None).status_code == 200
    assert "[DONE]" not in ask(server, stream=True, stream_options={}).text
    assert "[DONE]" in ask(ours, stream=True, stream_options={}).text
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    picture = [{"role": "user", "content": image}]
    assert ask(server, messages=picture).status_code == 404
    assert ask(ours, messages=picture).status_code == 200  # it is told in words that there is one
    assert ask(ours, model="no/such-model").status_code == 200  # and nothing is unloaded
    secret = [{"role": "developer", "content": "be kind"}, {"role": "user", "content": "hi"}]
    system = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    counts = [ask(ours, messages=m).json()["usage"]["prompt_tokens"] for m in (secret, system)]
    assert counts[0] == counts[1]
    with pytest.raises(openai.BadRequestError) as error:
        gate.chat("word " * 6000, max_tokens=1)
    assert error.value.code == "context_length_exceeded"
