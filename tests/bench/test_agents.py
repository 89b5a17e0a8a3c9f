"""What `bench/agents.py` gives agents to do, and how it judges what reaches the reasoner."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from agents_checks import problems, unchanged
from agents_reasoner import Reasoner
from agents_task import holds, make_project


def result(id: str, text: str = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text}


def called(id: str, arguments: str = "{}") -> dict[str, Any]:
    function = {"name": "bash", "arguments": arguments}
    call = {"id": id, "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


USER = {"role": "user", "content": "Go."}
NO_OBJECT = "the arguments of a call in message 1 are no object"
SAID = {"role": "assistant", "content": "Done."}


def test_each_command_shows_the_fact_that_is_asked_for(tmp_path: Path) -> None:
    steps = make_project(tmp_path, 44)
    assert len({step.command for step in steps}) == 44
    for step in steps[:6]:
        output = subprocess.check_output(step.command, shell=True, cwd=tmp_path, text=True)
        assert holds(output, step)
        assert holds(json.dumps({"returncode": 0, "output": output}), step)
        assert not holds(output, steps[6])
        assert not holds(step.question, step)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([USER, called("a"), result("a"), SAID, USER], None),
        ([USER, called("a")], "the last call has no result"),
        ([USER, called("a"), USER], "a call before message 2 has no result"),
        ([USER, result("a")], "the result in message 1 has no call"),
        (
            [USER, called("a", "{"), result("a")],
            NO_OBJECT,
        ),
        (
            [USER, called("a", "[]"), result("a")],
            NO_OBJECT,
        ),
        ([USER, SAID, SAID], "two answers follow each other, from message 1 on"),
        ([SAID, USER], "it begins with an answer"),
    ],
)
def test_what_is_wrong_with_a_request(messages: list[Any], problem: str | None) -> None:
    assert problems({"messages": messages}) == ([problem] if problem else [])


def test_the_share_that_stays() -> None:
    before = {"messages": [USER, SAID, USER, SAID]}
    assert unchanged(before, {"messages": [*before["messages"], USER]}) == 1
    assert unchanged(before, {"messages": [USER, SAID, SAID]}) == 0.5


def test_a_fact_that_is_not_answered_is_looked_for_in_its_output(tmp_path: Path) -> None:
    steps = make_project(tmp_path, 4)
    reasoner = Reasoner(steps, 2, lambda command: ("bash", {"command": command}))
    tools = [{"function": {"name": name}} for name in ("bash", "ask_memory", "expand")]
    messages: list[dict[str, Any]] = [USER]

    def answer(*more: dict[str, Any]) -> dict[str, Any]:
        messages.extend(more)
        sent = reasoner.answer({"messages": messages, "tools": tools})
        message: dict[str, Any] = json.loads(sent.partition(b"\r\n\r\n")[2])["choices"][0][
            "message"
        ]
        messages.append(message)
        return message

    def results(text: str) -> list[dict[str, Any]]:
        return [result(call["id"], text) for call in messages[-1]["tool_calls"]]

    def name(message: dict[str, Any]) -> str:
        function = message["tool_calls"][0]["function"]
        return str(function["name"])

    assert name(answer()) == "bash"
    assert name(answer(*results(steps[0].answer))) == "bash"
    messages[2]["content"] = f"[m-{'0' * 12}: the output]"  # as the gateway compacts it
    assert answer(*results(steps[1].answer))["content"] == "The first part is done."
    assert name(answer(USER)) == "ask_memory"
    assert name(answer(*results("nothing"))) == "expand"
    assert name(answer(*results(steps[0].answer))) == "bash"
    assert name(answer(*results("3"))) == "ask_memory"
    assert name(answer(*results(steps[1].answer))) == "bash"
    assert reasoner.shown == {0, 1}
    assert answer(*results("4"))["content"] == "All steps are done."
    assert [(one.found, one.expanded) for one in reasoner.asked] == [(False, True), (True, None)]
