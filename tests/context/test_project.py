"""The project that a conversation works in, as its agent tells the model."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from clara_mlx.context import Context
from clara_mlx.context.project import Projects, project_of
from clara_mlx.memory import Memory

TOLD = {
    "claude": "<env>\nWorking directory: /home/me/shop\nIs directory a git repo: Yes\n</env>",
    "newer claude": "# Environment\n - Primary working directory: `/home/me/shop`\n - OS: mac",
    "codex": "<environment_context>\n  <cwd>/home/me/shop</cwd>\n</environment_context>",
    "qwen-code": "Today is Monday.\nI'm currently working in the directory: /home/me/shop\n",
    "pi": "Current date: 2026-11-30\nCurrent working directory: /home/me/shop/",
}


@pytest.mark.parametrize("agent", TOLD)
def test_it_is_what_the_agent_tells(agent: str) -> None:
    told = {"role": "user" if agent == "codex" else "system", "content": TOLD[agent]}
    assert project_of([told, {"role": "user", "content": "Mend it."}]) == "/home/me/shop"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mend the working directory: it is broken.",
        "working directory: ",
        "working directory: relative/path",
        "Working directory: /a\x1b[31mb",
        "Working directory: /" + "a" * 10_000,
        "İ working directory: /home",  # its lower case is longer
    ],
)
def test_anything_else_is_no_project(text: str) -> None:
    assert project_of([{"role": "user", "content": text}]) == ""


def test_neither_answers_nor_outputs_nor_later_messages_say_it() -> None:
    text = TOLD["claude"]
    for role in ("assistant", "tool"):
        assert project_of([{"role": role, "content": text}]) == ""
    late = [{"role": "user", "content": "hello"}] * 10
    assert project_of([*late, {"role": "user", "content": text}]) == ""


@pytest.mark.alone
def test_a_long_text_is_looked_through_quickly() -> None:
    hostile = [{"role": "user", "content": "working directory:" * 500_000}]
    begun = time.perf_counter()
    assert project_of(hostile) == ""
    assert time.perf_counter() - begun < 1


def test_it_is_found_once_and_what_was_told_counts_more() -> None:
    projects = Projects()
    message = {"role": "system", "content": TOLD["pi"]}
    assert projects.look("s", [message]) == "/home/me/shop"
    assert projects.look("s", []) == "/home/me/shop"
    assert projects.look("s", [message], "/told") == "/told"
    assert projects.of("other") == ""


def test_what_is_remembered_of_a_conversation_belongs_to_it(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": TOLD["claude"]},
        {"role": "user", "content": "Say it again. " * 200},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "And now?"},
    ]
    with Memory.open(tmp_path / "m.db") as memory:
        context = Context(memory)
        context.observe([{"role": "user", "content": "Nobody knows where. " * 100}], "t")
        assert context.project("s", messages) == "/home/me/shop"
        context.observe(messages, "s")
        found = {one.session: one.metadata.get("project") for one in memory.list()}
    assert found == {"s": "/home/me/shop", "t": None}
