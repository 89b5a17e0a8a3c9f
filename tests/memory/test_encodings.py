"""What came as UTF-16 is found, quoted and answered from as the text that it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from clara_mlx.context import pages
from clara_mlx.memory import Memory
from clara_mlx.store.store import Store

TEXT = "".join(f"Zeile {n}: größer als erlaubt\r\n" for n in range(60)) + "OverflowError: 4711\r\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_bytes_are_found_and_quoted_as_text(tmp_path: Path, encoding: str) -> None:
    data = TEXT.encode(encoding)
    with Memory.open(tmp_path / "a.db") as memory:
        handle = memory.remember(data, source="powershell")
        assert memory.original(handle) == data
        (hit, *_) = memory.recall("OverflowError")
        assert "OverflowError: 4711" in hit.text
        assert memory.text(handle)[hit.start : hit.end] == hit.text
        assert "\0" not in hit.text
        assert "OverflowError: 4711" in pages.expand(memory, handle, find="Overflow")
        assert not memory.verify().problems


def test_chunks_that_were_cut_before_keep_their_text(tmp_path: Path) -> None:
    data = TEXT.encode("utf-16")
    as_it_was = data.decode("utf-8", "surrogateescape")
    store = Store(tmp_path / "a.db")
    spans = [(0, 1000, None), (1000, len(as_it_was), None)]
    handle = store.remember(data, as_it_was, spans, kind="bytes")
    assert store.text_by_handle(handle) == as_it_was
    store.close()
    with Memory.open(tmp_path / "a.db") as memory:
        assert not memory.verify().problems
        assert memory.original(handle) == data
        assert len(memory.text(handle)) == len(as_it_was)
        assert memory.remember(data) != handle
        assert not memory.verify().problems


def test_bytes_that_are_no_text_count_one_each(tmp_path: Path) -> None:
    data = b"\xff\xfe\x00\x00" + b"\x93" * 10 + "größe 4711".encode()
    with Memory.open(tmp_path / "a.db") as memory:
        handle = memory.remember(data)
        text = memory.text(handle)
        assert text.endswith("größe 4711")
        assert len(text) == len(data.decode("utf-8", "surrogateescape"))
        text.encode()  # no surrogates
