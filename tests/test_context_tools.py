"""expand and ask_memory: exact pages, bounded results, and mistakes told in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.context import tools
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory

LINES = [f"{i}: the {'flush' if i % 50 == 7 else 'other'} of step {i}" for i in range(1, 501)]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory.open(tmp_path / "memory.db") as opened:
        yield opened


def test_pages_cover_the_original_exactly(memory: Memory) -> None:
    handle = memory.remember("\n".join(LINES))
    seen: list[str] = []
    start: int | None = 1
    while start:
        page = tools.call(memory, "expand", json.dumps({"handle": handle, "start_line": start}))
        head, *lines = page.split("\n")
        seen += lines
        assert head.startswith(f"[{handle} lines {start}-{start + len(lines) - 1} of 500")
        start = int(head.rpartition("start_line=")[2].rstrip("]")) if "next" in head else None
    assert seen == LINES


def test_find_gives_lines_with_their_numbers(memory: Memory) -> None:
    handle = memory.remember("\n".join(LINES))
    found = tools.call(memory, "expand", {"handle": handle, "find": "flush"})
    head, *lines = found.split("\n")
    assert head == f"[{handle}: 10 of 500 lines contain 'flush']"
    assert "57: " + LINES[56] in lines and "55: " + LINES[54] in lines
    missed = tools.call(memory, "expand", {"handle": handle, "find": "nowhere"})
    assert missed == f"[{handle}: none of 500 lines contains 'nowhere']"


def test_a_find_that_misses_gives_the_nearest_lines(memory: Memory) -> None:
    handle = memory.remember("\n".join(LINES))
    found = tools.call(memory, "expand", {"handle": handle, "find": "Flush at step 57 nowhere"})
    head, *lines = found.split("\n")
    assert "none of 500 lines contains" in head and "share most of its words" in head
    assert f"57: {LINES[56]}" in lines


def test_a_question_inside_one_handle(memory: Memory) -> None:
    handle = memory.remember("\n".join(LINES), session="mine")
    other = memory.remember("a flush that no step did", session="mine")
    text = tools.call(memory, "ask_memory", {"question": "which flush?", "handle": handle})
    assert "flush" in text and other not in text
    assert len(text) <= tools.PAGE_CHARACTERS
    told = tools.call(memory, "ask_memory", {"question": "which?", "handle": "m-0123456789ab"})
    assert "no memory 'm-0123456789ab'" in told


@pytest.mark.parametrize(
    "text", ["x" * 500_000, "y" * 11_999 + "\n" + "z" * 30_000, "a\n" * 90_000]
)
def test_results_are_bounded(memory: Memory, text: str) -> None:
    handle = memory.remember(text)
    for arguments in ({}, {"find": text[0]}, {"start_line": 2, "lines": 10**9}):
        result = tools.call(memory, "expand", {"handle": handle, **arguments})
        assert len(result) <= tools.PAGE_CHARACTERS + 400


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("expand", {"handle": "m-0123456789"}, "no memory 'm-0123456789'"),
        ("expand", {"handle": "../../etc/passwd"}, "no memory"),
        ("expand", {}, "no memory ''"),
        ("expand", {"handle": "m-1", "lines": "many"}, "expand failed: invalid literal"),
        ("expand", "{not json", "expand failed"),
        ("expand", "[1]", "must be an object"),
        ("ask_memory", {}, "say what to look for"),
        ("ask_memory", {"question": "anything at all"}, "Nothing relevant"),
    ],
)
def test_mistakes_are_told_as_text(memory: Memory, name: str, arguments: Any, told: str) -> None:
    assert told in tools.call(memory, name, arguments)


def test_other_tools_are_not_ours(memory: Memory) -> None:
    with pytest.raises(ClaraError, match="'bash' is no tool"):
        tools.call(memory, "bash", {})


def test_asking_without_a_model_gives_the_lines(memory: Memory) -> None:
    handle = memory.remember("\n".join(LINES), session="mine")
    memory.remember("the flush of another session", session="other")
    text = tools.call(
        memory, "ask_memory", {"question": "flush of step 57"}, where={"session": "mine"}
    )
    assert f"{handle} lines " in text and LINES[56] in text
    assert "another session" not in text


def test_asking_with_a_model_gives_an_answer_and_the_lines(tmp_path: Path, clara: Any) -> None:
    with Memory.open(tmp_path / "memory.db", clara("c16", "e2e"), floor=-1.0) as memory:
        handle = memory.remember("\n".join(LINES[:40]))
        memory.flush(60)
        text = tools.call(memory, "ask_memory", {"question": "which step flushed?"})
    assert text.startswith("answer: ") and f"{handle} lines " in text


def test_lines_that_words_find_are_given_whatever_the_model_thinks(
    tmp_path: Path, clara: Any
) -> None:
    with Memory.open(tmp_path / "memory.db", clara("c16", "e2e"), floor=2.0) as memory:
        handle = memory.remember("the kernel is in src/kernel.py")
        memory.flush(60)
        assert memory.ask("Where is the kernel?").evidence == []
        told = tools.ask(memory, "Where is the kernel?")
    assert told == f"{handle} line 1:\nthe kernel is in src/kernel.py"


def test_schemas_name_what_is_there() -> None:
    names = [schema["function"]["name"] for schema in tools.SCHEMAS]
    assert names == sorted(names) == ["ask_memory", "expand"]
    assert set(names) <= tools.MEMORY_TOOLS
