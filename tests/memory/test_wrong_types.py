"""Arguments of wrong types end in a StoreError that says what was wrong; usable ones are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory

NO_TEXTS: list[Any] = [5, None, 1.5, ["a"], {"a": 1}, Path("a"), ...]
NO_FILTERS: list[Any] = ["source", [1], 5, 1.5, {1}, (), set(), [("source", "a")]]
NO_HANDLES: list[Any] = [5, None, b"m-1", ["m-1"], {}, ...]
NO_NUMBERS: list[Any] = ["3", 1.5, None, [3], 0, -1]


@pytest.mark.parametrize("text", [b"ab\xff", bytearray(b"ab\xff"), memoryview(b"ab\xff")])
def test_bytes_of_all_kinds_are_remembered(memory: Memory, text: Any) -> None:
    assert memory.original(memory.remember(text)) == b"ab\xff"


def test_a_view_with_gaps_is_remembered_as_its_bytes(memory: Memory) -> None:
    assert memory.original(memory.remember(memoryview(b"abcdef")[::2])) == b"ace"  # type: ignore[arg-type]


@pytest.mark.parametrize("text", NO_TEXTS, ids=repr)
def test_what_is_no_text(memory: Memory, text: Any) -> None:
    with pytest.raises(StoreError, match="must be a str or bytes, not"):
        memory.remember(text)
    assert memory.status().memories == 0


@pytest.mark.parametrize("text", [*NO_TEXTS, b"a"], ids=repr)
def test_what_is_no_query(memory: Memory, text: Any) -> None:
    with pytest.raises(StoreError, match="a query must be a string, not"):
        memory.recall(text)


@pytest.mark.parametrize("number", NO_NUMBERS, ids=repr)
def test_what_is_no_number_of_results(memory: Memory, number: Any) -> None:
    with pytest.raises(StoreError, match="must be"):
        memory.recall("a", number)
    if number is not None:
        with pytest.raises(StoreError, match="must be"):
            list(memory.list(None, number))


@pytest.mark.parametrize("where", NO_FILTERS, ids=repr)
def test_what_is_no_filter(memory: Memory, where: Any) -> None:
    memory.remember("a word")
    acts: list[Callable[[], Any]] = [
        lambda: memory.recall("word", where=where),
        lambda: list(memory.list(where)),
        lambda: memory.forget(where=where),
    ]
    for act in acts:
        with pytest.raises(StoreError, match="a filter is a dict"):
            act()
    assert memory.status().memories == 1


@pytest.mark.parametrize("handle", NO_HANDLES, ids=repr)
def test_what_is_no_handle(memory: Memory, handle: Any) -> None:
    memory.remember("a", handle="m-1")
    assert not memory.has(handle)
    for give in (memory.original, memory.original_bytes, memory.text):
        with pytest.raises(StoreError, match="no memory"):
            give(handle)
    if handle is not None:
        with pytest.raises(StoreError, match="handle must be a string"):
            memory.remember("b", handle=handle)
    assert memory.status().memories == 1


def test_a_thousand_handles(memory: Memory) -> None:
    handles = [memory.remember("shared words", handle=f"m-{number}") for number in range(3)]
    many = [*(f"m-none-{number}" for number in range(1000)), *handles]
    assert [stored.handle for stored in memory.list({"handle": many})] == handles
    assert memory.recall("shared", where={"handle": many, "n": [*range(500), None]})
    assert memory.forget(where={"handle": many}) == 3


def test_metadata_that_is_deep(memory: Memory) -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(5000):
        inner["a"] = {}
        inner = inner["a"]
    with pytest.raises(StoreError, match="nested more than"):
        memory.remember("a", metadata=deep)


@pytest.mark.parametrize("path", [5, None, "", b"", "a\0b", 1.5], ids=repr)
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(StoreError, match=r"memory file is named by|NUL in its name"):
        Memory.open(path)


def test_a_path_of_bytes(tmp_path: Path) -> None:
    with Memory.open(bytes(tmp_path / "m.db")) as memory:  # type: ignore[arg-type]
        memory.remember("a")
    assert (tmp_path / "m.db").exists()


def test_lines_of_an_import_that_are_no_text(memory: Memory) -> None:
    with pytest.raises(StoreError, match="line 1: it is no text: int"):
        memory.import_([5])  # type: ignore[list-item]
