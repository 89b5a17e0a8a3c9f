"""OpenAI's Responses: what the official client sends and reads, and what the reasoner gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway import Gateway, Upstream, fails, gateway, says
from responses_requests import TOOLS
from strict_template import Strict, render_strictly

BASH = TOOLS[0]


def answer(gate: Gateway, input: Any, **options: Any) -> Any:
    return gate.client.responses.create(model="any", input=input, **options)


def text(words: str) -> dict[str, str]:
    return {"type": "input_text", "text": words}


def test_an_answer_has_reasoning_text_and_calls(tmp_path: Path) -> None:
    calls = (("bash", {"a": "ls"}), ("apply_patch", {"input": "*** x"}), ("crm__find", {"q": 1}))
    upstream = Upstream(says("On it.", *calls, reasoning_content="Look first."))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        found = answer(gate, "Fix it.", tools=TOOLS, instructions="Be brief.")
    thought, message, call, patch, find = found.output
    assert thought.summary[0].text == "Look first."
    assert message.content[0].text == found.output_text == "On it."
    assert (call.type, call.name) == ("function_call", "bash")
    assert json.loads(call.arguments) == {"a": "ls"}
    assert (patch.type, patch.name, patch.input) == ("custom_tool_call", "apply_patch", "*** x")
    assert (find.type, find.namespace, find.name) == ("function_call", "crm", "find")
    assert found.status == "completed"
    assert (found.usage.input_tokens, found.usage.output_tokens) == (100, 5)
    assert found.instructions == "Be brief."
    sent = upstream.requests[0]
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Fix it."},
    ]
    functions = {tool["function"]["name"]: tool["function"] for tool in sent["tools"]}
    assert set(functions) == {"apply_patch", "ask_memory", "bash", "crm__find", "expand"}
    assert "start: LINE+" in functions["apply_patch"]["description"]
    assert functions["apply_patch"]["parameters"]["required"] == ["input"]


def test_the_next_request_has_the_answer_as_one_message(tmp_path: Path) -> None:
    calls = (("bash", {"a": "ls"}), ("apply_patch", {"input": "*** x"}), ("crm__find", {"q": 1}))
    upstream = Upstream(says("On it.", *calls, reasoning_content="Look first."), says("Done."))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        first = answer(gate, "Fix it.", tools=TOOLS)
        gave = [
            {"type": f"{one.type}_output", "call_id": one.call_id, "output": "fine"}
            for one in first.output[2:]
        ]
        items = [{"role": "user", "content": "Fix it."}, *first.output, *gave]
        assert answer(gate, items, tools=TOOLS).output_text == "Done."
    _, turn, *results = upstream.requests[1]["messages"]
    assert (turn["content"], turn["reasoning_content"]) == ("On it.", "Look first.")
    names = [call["function"]["name"] for call in turn["tool_calls"]]
    assert names == ["bash", "apply_patch", "crm__find"]
    assert json.loads(turn["tool_calls"][1]["function"]["arguments"]) == {"input": "*** x"}
    assert [one["tool_call_id"] for one in results] == [one.call_id for one in first.output[2:]]


def test_every_kind_of_item_is_read(tmp_path: Path) -> None:
    items = [
        {"role": "developer", "content": "One."},
        {"type": "message", "role": "developer", "content": [text("Two.")]},
        {"role": "user", "content": "Go."},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"type": "item_reference", "id": "rs_2"},
        {"type": "local_shell_call", "id": "l1", "call_id": "c1", "status": "completed",
         "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", "id": "l1", "output": "a.c"},
        {"type": "shell_call", "call_id": "c2", "action": {"commands": ["pwd"]}},
        {"type": "shell_call_output", "call_id": "c2", "output": [{"stdout": "/x", "stderr": ""}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "mcp_call", "id": "mcp_1", "server_label": "docs", "name": "read",
         "arguments": "{}", "output": "page"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "developer", "content": "Stay calm."},
        {"type": "compaction", "encrypted_content": "gAAAAAB"},
        {"type": "ghost_snapshot", "ghost_commit": {}},
        {"type": "agent_message", "author": "a", "recipient": "b", "content": [text("Hi.")]},
        {"role": "user", "content": [text("Well?")]},
    ]  # fmt: skip
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        assert answer(gate, items, tools=[BASH]).output_text == "ok"
    sent = upstream.requests[0]["messages"]
    assert [one["role"] for one in sent] == [
        *("system", "user", "assistant", "tool", "assistant", "tool", "assistant", "tool"),
        *("assistant", "system", "assistant", "user", "user"),
    ]
    assert sent[0]["content"] == "One.\n\nTwo."
    called = [one["tool_calls"][0]["function"]["name"] for one in sent if one.get("tool_calls")]
    assert called == ["local_shell", "shell", "docs__read"]
    assert [one["content"] for one in sent[8:]] == [
        "No.",
        "Stay calm.",
        "(An earlier part of this conversation was compacted by another service, and can't be read "
        "here.)",
        "Hi.",
        "Well?",
    ]


def test_what_codex_sends_is_taken_by_templates_that_insist_on_turns(tmp_path: Path) -> None:
    """It begins with two instructions and two messages of a user's, and may add more of them."""
    call = {"type": "function_call", "call_id": "c1", "name": "bash", "arguments": "{}"}
    items: list[dict[str, Any]] = [
        *({"role": "developer", "content": [text(words)]} for words in ("Code.", "Sandbox.")),
        *({"role": "user", "content": [text(words)]} for words in ("<cwd>/x</cwd>", "Fix it.")),
        {"role": "assistant", "content": [{"type": "output_text", "text": "Look."}]},
        call,
        {"type": "function_call_output", "call_id": "c1", "output": "a.c"},
        {"role": "user", "content": [text("<turn_aborted>")]},
        {"role": "user", "content": [text("Go on."), {"type": "input_image", "image_url": "x"}]},
        {"role": "developer", "content": "Approval is never asked."},
        {"role": "user", "content": [text("Now.")]},
    ]
    upstream = Upstream(says("ok"))
    with upstream.running() as url:
        seen = {"images": True}
        with gateway(tmp_path, url, counter=Strict(), remote=seen) as gate:
            answer(gate, items, tools=TOOLS)
            items[8]["content"] = [text("Go on.")]
            answer(gate, items, tools=TOOLS)

    for sent in (request["messages"] for request in upstream.requests):
        render_strictly(sent)
        said = json.dumps(sent)
        words = ("Code.", "Sandbox.", "<cwd>", "Fix", "Look.", "aborted", "on.", "never", "Now.")
        assert all(one in said for one in words)
    assert "image_url" in json.dumps(upstream.requests[0])


def test_options_have_other_names(tmp_path: Path) -> None:
    upstream = Upstream(says('{"a": 1}'))
    with upstream.running() as url, gateway(tmp_path, url, remote={"obeys": True}) as gate:
        answer(
            gate,
            "Go.",
            tools=TOOLS,
            tool_choice={"type": "custom", "name": "apply_patch"},
            parallel_tool_calls=False,
            max_output_tokens=77,
            temperature=0.5,
            reasoning={"effort": "low", "summary": "auto"},
            text={"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": True}},
            store=True,
            include=["reasoning.encrypted_content"],
            truncation="auto",
            extra_body={"unknown": {"field": 1}},
        )
        answer(gate, "Go.", tools=TOOLS, tool_choice={"type": "web_search"})
        allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"name": "bash"}]}
        answer(gate, "Go.", tools=TOOLS, tool_choice=allowed)
    first, second, third = upstream.requests
    assert first["tool_choice"] == {"type": "function", "function": {"name": "apply_patch"}}
    assert (first["max_tokens"], first["temperature"]) == (77, 0.5)
    assert (first["parallel_tool_calls"], first["reasoning_effort"]) == (False, "low")
    form = {"name": "a", "schema": {}, "strict": True}
    assert first["response_format"] == {"type": "json_schema", "json_schema": form}
    assert "unknown" not in first and "include" not in first
    assert "tool_choice" not in second
    names = {tool["function"]["name"] for tool in third["tools"]}
    assert names == {"bash", "ask_memory", "expand"} and third["tool_choice"] == "required"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"background": True}, "background"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ({"input": [{"role": "narrator", "content": "x"}], "instructions": "X"}, "input[0].role"),
    ({"instructions": [{"role": "system", "content": 1}]}, "instructions[0].content"),
    ({"input": []}, "input"),
    ({"temperature": 3}, "temperature"),
]


def test_what_is_not_served_is_refused_in_words(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        for options, param in REFUSED:
            with pytest.raises(openai.BadRequestError) as caught:
                answer(gate, **{"input": "Go.", **options})
            assert caught.value.param == param
            assert param.split("[")[0] in caught.value.message
    assert not upstream.requests


def test_images_are_passed_to_who_reads_them(tmp_path: Path) -> None:
    seen = [{"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"}]
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    gave = {"type": "function_call_output", "call_id": "c1", "output": seen}
    items = [{"role": "user", "content": "Look."}, call, gave]
    upstream = Upstream(says("A cat."))
    with upstream.running() as url:
        for number, reads_images in enumerate((False, True)):
            path = tmp_path / str(number)
            path.mkdir()
            with gateway(path, url, remote={"images": reads_images}) as gate:
                assert answer(gate, items).output_text == "A cat."
    image = {"url": "data:image/png;base64,AA", "detail": "low"}
    told, sent = (request["messages"][-1]["content"] for request in upstream.requests)
    assert isinstance(told, str) and "image" in told  # a refusal would end the conversation
    assert sent == [{"type": "image_url", "image_url": image}]


def test_memory_calls_stay_hidden_and_are_put_back(tmp_path: Path) -> None:
    """The text of both rounds comes back as one, so that the rounds are found."""
    upstream = Upstream(
        says("Let me look.", ("ask_memory", {"question": "what?"})),
        says("It is 7.", reasoning_content="So it is."),
        says("Yes."),
    )
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        first = answer(gate, "What is it?", tools=[BASH])
        assert first.output_text == "Let me look.It is 7."
        items = [{"role": "user", "content": "What is it?"}, *first.output]
        answer(gate, [*items, {"role": "user", "content": "Sure?"}], tools=[BASH])
    roles = [one["role"] for one in upstream.requests[2]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


def test_codex_names_its_threads(tmp_path: Path) -> None:
    """An agent that another one starts has the same session, and a thread of its own."""
    upstream = Upstream(says("ok"))
    thread, agent = "01a22b2c-2fc6-7bf1-bdd0-7addfbab8746", "01a22b2c-30b4-7c71-9c5b-bf64b60d28b8"
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        for own in (thread, agent):
            headers = {"session-id": thread, "thread-id": own}
            answer(gate, "Go.", prompt_cache_key=thread, extra_headers=headers)
        named = {one["session"] for one in gate.status()["conversations"]}
    assert named == {thread, agent}


def test_codex_finds_the_model_and_does_without_websockets(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        listed = gate.http.get("/v1/models", params={"client_version": "0.171.0"}).json()
        upgrade = {"connection": "Upgrade", "upgrade": "websocket"}
        refused = gate.http.get("/v1/responses", headers=upgrade)
        assert refused.status_code == 426 and "POST" in refused.json()["error"]["message"]
        assert gate.http.get("/v1/responses").status_code == 405
    (model,) = listed["models"]
    assert model["slug"] == listed["data"][0]["id"]
    assert model["context_window"] == listed["data"][0]["max_model_len"]
    # Without one of these Codex drops the whole list.
    assert set(model) >= {
        *("display_name", "supported_reasoning_levels", "shell_type", "visibility", "priority"),
        *("supported_in_api", "base_instructions", "support_verbosity", "truncation_policy"),
        "experimental_supported_tools",
    }


def test_an_error_of_the_reasoner_keeps_its_status(tmp_path: Path) -> None:
    upstream = Upstream(fails(429, {"message": "slower", "code": "rate_limit_exceeded"}))
    with (
        upstream.running() as url,
        gateway(tmp_path, url) as gate,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        answer(gate, "Go.")
    assert caught.value.code == "rate_limit_exceeded"
