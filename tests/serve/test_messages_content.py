"""Conversations in Anthropic's blocks, read into the inner form."""

from __future__ import annotations

from typing import Any

import pytest
from strict_template import Strict, render_strictly

from clara_mlx.context.counting import for_template
from clara_mlx.serve.apis.messages import read_request
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.request import ChatRequest

BILLING = "x-anthropic-billing-header: cc_version=2.1.197.1c0; cc_entrypoint=cli; cch=abc12;"


def read(*messages: Any, **body: Any) -> ChatRequest:
    return read_request({"model": "m", "max_tokens": 9, "messages": [*messages], **body}, None)


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*blocks]}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [*blocks]}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def use(id: str, name: str = "run", **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def result(id: str, content: Any = "done", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def call(id: str, arguments: str = "{}", name: str = "run") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.mark.parametrize(
    ("system", "sent"),
    [
        (None, None),
        ("Be brief.", "Be brief."),
        ([text("Be brief.", cache_control={"type": "ephemeral"}), text("Be kind.")], None),
        ([text(BILLING), text("Be brief.")], "Be brief."),
        ([text(f"{BILLING}\nBe brief.")], "Be brief."),
        (f"{BILLING}\nBe brief.", "Be brief."),
        ([text("Be brief."), text(f"\n{BILLING}")], "Be brief."),
        (BILLING, None),
    ],
)
def test_instructions(system: Any, sent: str | None) -> None:
    asked = read(user(text("Hi.")), system=system)
    if isinstance(system, list) and len(system) == 2 and sent is None:
        sent = "Be brief.\n\nBe kind."
    first = [] if sent is None else [{"role": "system", "content": sent}]
    assert asked.messages == [*first, {"role": "user", "content": "Hi."}]


def test_what_rotates_changes_nothing_that_is_sent() -> None:
    first, second = (
        read(user(text("Hi.")), system=[text(BILLING + turn), text("Be brief.")])
        for turn in ("1", "2")
    )
    assert first.messages == second.messages and first.key != second.key


def test_instructions_amid_the_conversation_stay_there() -> None:
    reminder = {"role": "system", "content": "100 tokens are left."}
    as_blocks = {"role": "system", "content": [text("Be"), text("brief.")]}
    asked = read(user(text("Hi.")), reminder, assistant(text("Yes?")), as_blocks, system="S")
    assert asked.messages == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Hi."},
        {"role": "system", "content": "100 tokens are left."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "system", "content": "Be\n\nbrief."},
    ]


def test_results_come_before_what_the_user_says_with_them() -> None:
    asked = read(
        user(text("Go.")),
        assistant(text("I will. "), text("Now."), use("a", n=1), use("b")),
        user(text("Mind this."), result("a", "1"), text("And that."), result("b", "2")),
    )
    assert asked.messages[1:] == [
        {
            "role": "assistant",
            "content": "I will. Now.",
            "tool_calls": [call("a", '{"n": 1}'), call("b")],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "user", "content": "Mind this.\n\nAnd that."},
    ]


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        (result("a", "text"), "text"),
        (result("a", None), ""),
        ({"type": "tool_result", "tool_use_id": "a"}, ""),
        (result("a", [text("one"), text("two")]), "one\ntwo"),
        (result("a", "no such file", is_error=True), "Error: no such file"),
        (result("a", "Error: no such file", is_error=True), "Error: no such file"),
        (result("a", [], is_error=True), "Error"),
        (result("a", [text("see"), {"type": "image", "source": PNG}]), [text("see"), IMAGE]),
        (result("a", [{"type": "tool_reference", "tool_name": "grep"}]), "grep"),
        (
            result("a", [{"type": "search_result", "title": "T", "source": "s", "content": []}]),
            "T",
        ),
    ],
)
def test_results(given: Any, read_as: Any) -> None:
    asked = read(user(text("Go.")), assistant(use("a")), user(given))
    assert asked.messages[-1] == {"role": "tool", "tool_call_id": "a", "content": read_as}
    assert asked.has_images == isinstance(read_as, list)


@pytest.mark.parametrize(
    ("block", "read_as"),
    [
        ({"type": "image", "source": PNG}, [IMAGE]),
        (
            {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
            [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}],
        ),
        (
            {"type": "image", "source": {"type": "file", "file_id": "f1"}},
            "(image that this server can't fetch: file)",
        ),
        (
            {"type": "document", "title": "T", "source": {"type": "text", "data": "words"}},
            "T\n\nwords",
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [text("a"), text("b")]}},
            "a\n\nb",
        ),
        (
            {
                "type": "document",
                "title": "T",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            },
            [
                {
                    "type": "file",
                    "file": {"filename": "T", "file_data": "data:application/pdf;base64,JVBE"},
                }
            ],
        ),
        ({"type": "container_upload", "file_id": "f"}, ""),
        ({"type": "of_next_year", "content": [{"text": "words"}], "n": 1}, "words"),
    ],
)
def test_what_a_user_sends(block: Any, read_as: Any) -> None:
    assert read(user(block)).messages == [{"role": "user", "content": read_as}]


def test_what_an_assistant_said() -> None:
    found = {"type": "web_search_result", "title": "MLX", "url": "https://a.example", "x": "…"}
    asked = read(
        user(text("Go.")),
        assistant(
            {"type": "thinking", "thinking": "Hm.", "signature": "of anybody"},
            {"type": "thinking", "thinking": "", "signature": "of one that is not shown"},
            {"type": "redacted_thinking", "data": "…"},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [found]},
            text(" It is fast."),
        ),
    )
    assert asked.messages[1] == {
        "role": "assistant",
        "content": "\nMLX\nhttps://a.example\n It is fast.",
        "reasoning_content": "Hm.",
    }


def test_messages_of_one_role_in_a_row_are_one_turn() -> None:
    asked = read(
        user(text("One.")),
        {"role": "user", "content": "Two."},
        assistant(text("A.")),
        assistant(text("B."), use("a")),
        user(result("a")),
        user(text("Three.")),
        {"role": "system", "content": "S"},
        user(text("Four.")),
    )
    assert [(m["role"], m["content"]) for m in asked.messages] == [
        ("user", "One.\n\nTwo."),
        ("assistant", "A.\n\nB."),
        ("tool", "done"),
        ("user", "Three."),
        ("system", "S"),
        ("user", "Four."),
    ]


def test_what_claude_code_sends_is_taken_by_templates_that_insist_on_turns() -> None:
    reminder = {"role": "system", "content": "100 tokens are left."}
    asked = read(
        user(text("Go.")),
        {"role": "system", "content": "Agents: Explore."},
        assistant(text("Look."), use("a")),
        user(result("a"), text("<system-reminder>Be careful.</system-reminder>")),
        reminder,
        assistant(use("b")),
        user(result("b")),
        reminder,
        assistant(use("c")),
        user(result("c")),
        user(text("[Request interrupted by user]"), text("Stop.")),
        user(text("And now?")),
        assistant(text("Done.")),
        reminder,
        user(text("Good.")),
        system="You are an agent.",
    )
    sent = for_template(Strict(), asked.messages)
    render_strictly(sent)
    said = "".join(str(message["content"]) for message in sent)
    assert all(words in said for words in ("Explore", "careful", "100 tokens", "Stop.", "now?"))


def test_calls_and_results_that_were_lost_get_their_places() -> None:
    asked = read(user(text("Go.")), assistant(use("a")), user(result("b", "late")))
    assert [m["role"] for m in asked.messages] == ["user", "assistant", "tool", "assistant", "tool"]


def test_edits_that_a_client_asks_for_lower_the_trigger() -> None:
    def above(*edits: Any) -> int | None:
        return read(user(text("Go.")), context_management={"edits": list(edits)}).compact_above

    trigger = {"type": "input_tokens", "value": 30_000}
    clear = {"type": "clear_tool_uses_20250919", "trigger": trigger, "keep": {"value": 3}}
    sooner = {"type": "compact_20260112", "trigger": {**trigger, "value": 20_000}}
    thoughts = {"type": "clear_thinking_20251015", "keep": "all"}
    assert above(thoughts, clear) == 30_000
    assert above(clear, sooner) == 20_000
    assert above() is above(thoughts) is above({"trigger": {"value": "x"}}) is above(7) is None


def test_options_and_tools() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    asked = read(
        user(text("Go.")),
        tools=[
            {
                "name": "run",
                "description": "Run it.",
                "input_schema": dialect | schema,
                "strict": True,
            },
            {"type": "custom", "name": "look", "input_schema": {}, "cache_control": {}},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        ],
        tool_choice={"type": "tool", "name": "run", "disable_parallel_tool_use": True},
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["END"],
        metadata={"user_id": "me", "more": 1},
        thinking={"type": "enabled", "budget_tokens": 1024},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": schema}},
        service_tier="auto",
        of_next_year={"a": [1]},
    )
    assert asked.tools == [
        {"type": "function", "function": {"name": "look", "parameters": {}}},
        {
            "type": "function",
            "function": {"name": "run", "description": "Run it.", "parameters": schema},
        },
    ]
    assert asked.options == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["END"],
        "metadata": {"user_id": "me"},
        "tool_choice": {"type": "function", "function": {"name": "run"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema},
        },
    }


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "web_search"}, {}),  # is not there to be called
    ],
)
def test_tool_choices(choice: Any, options: Any) -> None:
    tools = [{"name": "run", "input_schema": {}}]
    asked = read(user(text("Go.")), tools=tools, tool_choice=choice)
    assert asked.options == {"max_tokens": 9, **options}
    # Servers refuse a choice among no tools.
    assert read(user(text("Go.")), tools=[], tool_choice=choice).options == {"max_tokens": 9}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi."}, "messages"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [user("Hi.")]}, "messages[0].content[0]"),
        ({"messages": [user({"type": "text"})]}, "messages[0]: the text"),
        ({"messages": [user({"type": "image"})]}, "messages[0]: the source"),
        ({"messages": [user({"type": "tool_result"})]}, "tool_use_id"),
        ({"messages": [assistant({"type": "tool_use", "id": "a"})]}, "the name"),
        ({"messages": [user(*[text("")] * 10_001)]}, "blocks"),
        ({"system": 5}, "system"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "run"}]}, "tools[0]"),
        ({"tools": [{"name": "a", "input_schema": {}}], "tool_choice": {"type": "x"}}, "choice"),
    ],
)
def test_what_is_wrong_is_named(body: Any, named: str) -> None:
    with pytest.raises(ApiError, match=r".") as raised:
        read_request({"model": "m", "messages": [user(text("Hi."))], **body}, None)
    assert raised.value.status == 400 and named in str(raised.value)
