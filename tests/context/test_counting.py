"""Counting: the reasoner's tokenizer and template as its server uses them, and the estimate."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from counting_folders import TOOLS, tokenizer_folder
from tokenizers import Tokenizer
from trajectories import call, report, start, step, trajectory

from clara_mlx.context import Budget, ChatTemplate, Context, Estimate
from clara_mlx.context.counting import for_template
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("reasoner"))


def rendered(messages: list[dict[str, Any]], tools: list[Any] | None) -> str:
    """The template by hand."""
    text = ""
    if tools:
        text += "<|begin|>tools\n" + "".join(json.dumps(t) + "\n" for t in tools) + "<|end|>\n"
    for message in messages:
        text += f"<|begin|>{message['role']}\n{message['content'] or ''}"
        for one in message.get("tool_calls") or ():
            arguments = json.loads(one["function"]["arguments"])
            text += f"<call>{one['function']['name']}"
            text += "".join(f" {key}={value}" for key, value in arguments.items())
        text += "<|end|>\n"
    return text + "<|begin|>assistant\n"


LATE_SYSTEM_MESSAGE_REFUSED = (
    "{%- for m in messages %}{% if loop.index0 and m.role == 'system' %}"
    "{{ raise_exception('too late') }}{% endif %}{{ m.content }}{% endfor %}"
)


def test_whether_a_late_system_message_is_taken_is_known_at_the_start(
    folder: Path, tmp_path: Path
) -> None:
    assert Estimate().takes_late_system_message
    assert ChatTemplate(folder).takes_late_system_message
    strict = shutil.copytree(folder, tmp_path / "strict")
    config = json.loads((strict / "tokenizer_config.json").read_text())
    config["chat_template"] = LATE_SYSTEM_MESSAGE_REFUSED
    (strict / "tokenizer_config.json").write_text(json.dumps(config))
    assert not ChatTemplate(strict).takes_late_system_message


def test_a_thought_beside_a_text_is_left_out_where_a_template_refuses_it(
    folder: Path, tmp_path: Path
) -> None:
    """Agents send both back in every later request: the conversation could not go on."""
    strict = shutil.copytree(folder, tmp_path / "strict")
    config = json.loads((strict / "tokenizer_config.json").read_text())
    template = Path(__file__).parents[1] / "support" / "templates" / "gpt-oss.jinja"
    config["chat_template"] = template.read_text(encoding="utf-8")
    (strict / "tokenizer_config.json").write_text(json.dumps(config))
    counter = ChatTemplate(strict)
    call = {"id": "a", "type": "function", "function": {"name": "run", "arguments": "{}"}}
    said = {
        "role": "assistant",
        "content": "Now.",
        "reasoning_content": "Hm.",
        "tool_calls": [call],
    }
    silent = {**said, "content": ""}
    talk: list[Any] = [{"role": "user", "content": "Go."}, said, silent]
    sent = for_template(counter, talk)
    assert sent[1:] == [{k: v for k, v in said.items() if k != "reasoning_content"}, silent]
    assert counter.prompt(sent) and for_template(ChatTemplate(folder), talk) == talk
    with pytest.raises(ClaraError, match="both content and thinking"):
        counter.prompt(talk)


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_the_prompt_is_counted_as_the_server_renders_it(folder: Path, tools: Any) -> None:
    counter = ChatTemplate(folder)
    messages = [*start(), *step(0, [report(0, 5), "é\n"]), {"role": "assistant", "content": None}]
    given = json.dumps(messages)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    expected = len(plain.encode(rendered(messages, tools)).ids)
    assert counter.exact and counter.prompt(messages, tools) == expected
    listed = [{**m, "content": [{"type": "text", "text": m["content"] or ""}]} for m in messages]
    assert counter.prompt(listed, tools) == expected
    assert json.dumps(messages) == given


def test_texts_are_counted_and_remembered(folder: Path) -> None:
    counter = ChatTemplate(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("", report(1, 3), "\ud800 lone", "<|begin|>"):
        readable = text.encode("utf-8", "replace").decode()
        expected = len(plain.encode(readable).ids)
        assert counter.text(text) == counter.text(text) == expected


def test_threads_share_a_counter(folder: Path) -> None:
    counter = ChatTemplate(folder)
    messages = [message for added in trajectory(4) for message in added]
    expected, found = counter.prompt(messages), []

    def count() -> None:
        found.extend(counter.prompt(messages) + counter.text(str(i)) * 0 for i in range(10))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 40


def test_the_budget_is_met_to_the_token(folder: Path, tmp_path: Path) -> None:
    budget = Budget(window=9000, reserve=500, keep=2)
    with Memory.open(tmp_path / "memory.db") as memory:
        context = Context(memory, ChatTemplate(folder), budget)
        messages: list[dict[str, Any]] = []
        for added in trajectory(16, 40):
            messages += added
            prepared = context.prepare(messages, tools=TOOLS)
            real = context.counter.prompt(prepared.messages, TOOLS)
            assert real <= budget.limit
            assert not prepared.exact or prepared.tokens == real
            if prepared.exchange:
                assert prepared.exact and prepared.exchange.after == real
            else:
                assert abs(prepared.tokens - real) < 0.2 * real


def test_what_the_template_refuses_is_counted_roughly(folder: Path, tmp_path: Path) -> None:
    counter = ChatTemplate(folder)
    refused = [{"role": "refused", "content": "x " * 2000}]
    with pytest.raises(ClaraError, match="no such role"):
        counter.prompt(refused)
    broken = call("a", "bash")
    broken["function"]["arguments"] = "{not json"
    with pytest.raises(ClaraError, match="rejects these messages"):
        counter.prompt([{"role": "assistant", "content": "", "tool_calls": [broken]}])
    with Memory.open(tmp_path / "memory.db") as memory:
        prepared = Context(memory, counter, Budget(window=9000)).prepare(refused)
        assert prepared.messages == refused and not prepared.exact


def test_folders_without_a_template(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ClaraError, match=r"nowhere: no usable tokenizer"):
        ChatTemplate(tmp_path / "nowhere")
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}'
    )
    with pytest.raises(ClaraError, match="no chat template"):
        ChatTemplate(tmp_path)


def test_the_estimate_is_what_it_says() -> None:
    estimate = Estimate()
    assert not estimate.exact
    assert [estimate.text(t) for t in ("", "a", "abc", "abcd", "é" * 3)] == [0, 1, 1, 2, 2]
    message = {"role": "user", "content": "abc"}
    assert estimate.prompt([message]) == 1 + 8
    assert estimate.prompt([{**message, "reasoning_content": "abc" * 9}]) == 1 + 8 + 9
    assert estimate.prompt([message], TOOLS) == 9 + estimate.text(json.dumps(TOOLS))


def test_descriptions_of_tools_have_longer_tokens_than_the_rest() -> None:
    said = "Ask about anything seen earlier in this work, shown or not. Gives a short answer."
    function = {"name": "ask", "description": said, "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    bare = [{"type": "function", "function": {**function, "description": ""}}]
    estimate = Estimate()
    added = estimate.prompt([], tools) - estimate.prompt([], bare)
    # cl100k and o200k have 18 tokens for it, Mistral's tekken 19.
    assert 19 <= added < estimate.text(said)
    parts = [{"deep": [{"description": said}]}, {"description": 5}]
    assert estimate.prompt([], parts) < estimate.text(json.dumps(parts))
