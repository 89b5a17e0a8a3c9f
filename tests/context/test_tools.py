"""expand and ask_memory: exact pages, bounded results, and mistakes told in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trajectories import LINES

from clara_mlx.context import tools
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory


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
    with pytest.raises(ClaraError, match="'bash' is not a tool"):
        tools.call(memory, "bash", {})


def test_schemas_name_what_is_there() -> None:
    names = [schema["function"]["name"] for schema in tools.SCHEMAS]
    assert names == sorted(names) == ["ask_memory", "expand"]
    assert set(names) <= tools.MEMORY_TOOLS
