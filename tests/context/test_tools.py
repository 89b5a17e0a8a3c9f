"""expand and ask_memory: exact pages, bounded results, and mistakes told in words."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import LINES

from clara_mlx.context import pages, tools
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory


@contextmanager
def _memory() -> Iterator[Memory]:
    with tempfile.TemporaryDirectory() as folder, Memory.open(Path(folder) / "memory.db") as memory:
        yield memory


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


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=9),
            st.integers(11_990, 36_010).map(lambda size: ("abcdefghij" * 3_700)[:size]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_there_is_a_next_page_until_the_end(lines: list[str]) -> None:
    """Whatever the lines: going on as each page says gives the whole text, to the character."""
    text = "\n".join(lines)
    with _memory() as memory:
        handle = memory.remember(text or " ")
        read, asked = "", {"handle": handle}
        while True:
            head, _, page = tools.call(memory, "expand", asked).partition("\n")
            assert head.startswith(f"[{handle} lines ")
            read += page
            told = dict(re.findall(r"(start_\w+)=(\d+)", head))
            if not told:
                break
            read += "" if "start_character" in told else "\n"
            asked = {"handle": handle, **told}
        assert read == (text or " ")


def test_every_match_in_a_long_line_is_found(memory: Memory) -> None:
    printed = [
        f"tests/test_{i}.py::test_case {'FAILED' if i % 700 == 3 else 'ok'}" for i in range(9_000)
    ]
    handle = memory.remember(json.dumps({"returncode": 1, "output": "\n".join(printed)}))
    head, *found = tools.call(memory, "expand", {"handle": handle, "find": "FAILED"}).split("\n")
    assert head.startswith(f"[{handle}: 1 of 1 lines contain 'FAILED', 13 times in all")
    for number in range(3, 9_000, 700):
        assert any(f"test_{number}.py::test_case FAILED" in line for line in found)


def test_matches_that_one_page_does_not_hold_are_on_the_next(memory: Memory) -> None:
    lines = [f"{i}: " + "y" * 900 + f" needle {i}" for i in range(90)] + ["needle 90 " * 3_000]
    handle = memory.remember("\n".join(lines))
    seen: set[str] = set()
    asked: dict[str, Any] = {"handle": handle, "find": "needle"}
    for _ in range(200):
        head, *shown = tools.call(memory, "expand", asked).split("\n")
        assert head.startswith(f"[{handle}: 91 of 91 lines contain 'needle', 3090 times in all")
        seen |= {number for line in shown for number in re.findall(r"needle (\d+)", line)}
        told = dict(re.findall(r"(start_\w+)=(\d+)", head))
        if not told:
            break
        asked |= told
    assert not told and seen >= {str(i) for i in range(91)}


def test_what_codes_hide_is_found(memory: Memory) -> None:
    handle = memory.remember("one\n\x1b[31mFAIL\x1b[0mED: the \x1b[1mkernel\x1b[0m test\nthree")
    found = tools.call(memory, "expand", {"handle": handle, "find": "FAILED: the kernel"})
    assert "without codes and escapes, 1 do" in found and "2: FAILED: the kernel test" in found


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"start_line": 7}, "line 7 is past the end; it has 2 lines"),
        (
            {"start_line": 1, "start_character": 9},
            "past the end of line 1, which has 3",
        ),
        ({"start_line": 2, "start_character": 3}, "characters 3-3 of 3]\nx"),
        ({"find": "o", "start_line": 2}, "1 are before this page"),
    ],
)
def test_what_is_past_the_end_is_told(memory: Memory, arguments: Any, told: str) -> None:
    handle = memory.remember("one\nsix")
    assert told in tools.call(memory, "expand", {"handle": handle, **arguments})


@pytest.mark.parametrize(
    "text", ["x" * 500_000, "y" * 11_999 + "\n" + "z" * 30_000, "a\n" * 90_000]
)
def test_results_are_bounded(memory: Memory, text: str) -> None:
    handle = memory.remember(text)
    for arguments in ({}, {"find": text[0]}, {"start_line": 2, "lines": 10**9}):
        result = tools.call(memory, "expand", {"handle": handle, **arguments})
        assert len(result) <= pages.PAGE_CHARACTERS + 400


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
