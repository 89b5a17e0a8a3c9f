"""The blocks of a memory file: chosen once, found by their text, gone with what they speak of."""

from __future__ import annotations

import threading

import pytest

from clara_mlx.context.table import Block, BlockTable, Edit
from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory


def test_a_block_is_chosen_once(memory: Memory) -> None:
    table, handle = BlockTable(memory.file), memory.remember("original")
    first = table.keep(Block(b"d", "piece", "text", handle))
    assert table.keep(Block(b"d", "piece", "another text", handle)) == first
    assert table.block(b"d") == table.block_with_text("text") == first
    assert table.block_with_text("another text") is None and table.block(b"e") is None


def test_threads_choose_one(memory: Memory) -> None:
    table, handle = BlockTable(memory.file), memory.remember("original")
    chosen: list[Block] = []
    threads = [
        threading.Thread(
            target=lambda i=i: chosen.append(table.keep(Block(b"d", "piece", f"text {i}", handle)))
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(chosen) == 8 and len(set(chosen)) == 1


def test_a_body_comes_back_exactly(memory: Memory) -> None:
    table = BlockTable(memory.file)
    for digest, body in ((b"1", ""), (b"2", "\ud800 lone"), (b"3", "long " * 9999)):
        table.keep(Block(digest, "piece", f"text {digest!r}", None, body))
        again = table.block(digest)
        assert again and again.body == body


def test_forgetting_takes_blocks_and_edits_along(memory: Memory) -> None:
    table = BlockTable(memory.file)
    own, other, left = (memory.remember(text) for text in ("own", "other", "left"))
    one = table.keep(Block(b"1", "piece", "one", own))
    note = table.keep(Block(b"2", "note", "two", None), [own, other])
    stays = table.keep(Block(b"3", "piece", "three", left))
    table.save_edits(
        [Edit(b"c", "content", one), Edit(b"c", "note", note), Edit(b"e", "content", stays)]
    )
    memory.forget(other)
    assert table.block(b"2") is None
    assert table.edits([b"c", b"e"]) == [Edit(b"c", "content", one), Edit(b"e", "content", stays)]
    memory.forget(own)
    assert table.edits([b"c", b"e"]) == [Edit(b"e", "content", stays)]
    memory.forget(left)
    for name in ("blocks", "mentions", "edits"):
        assert memory.file.read(f"SELECT count(*) FROM {name}")[0][0] == 0
    assert memory.file.read("PRAGMA foreign_key_check") == []


def test_a_block_of_a_memory_that_is_not_there(memory: Memory) -> None:
    with pytest.raises(StoreError):
        BlockTable(memory.file).keep(Block(b"1", "piece", "one", "m-0123456789"))
    assert BlockTable(memory.file).block(b"1") is None


def test_edits_are_replaced_and_dropped(memory: Memory) -> None:
    table, handle = BlockTable(memory.file), memory.remember("original")
    long = table.keep(Block(b"1", "piece", "long", handle))
    short = table.keep(Block(b"2", "piece", "short", handle))
    table.save_edits([Edit(b"c", "content", long, True), Edit(b"c", "arguments.0", long)])
    table.save_edits([Edit(b"c", "content", short)])
    assert set(table.edits([b"c", b"c", b"none"])) == {
        Edit(b"c", "content", short),
        Edit(b"c", "arguments.0", long),
    }
    assert table.drop_edits([b"c", b"none"]) == 2
    assert table.edits([b"c"]) == []


def test_many_chains_at_once(memory: Memory) -> None:
    table, handle = BlockTable(memory.file), memory.remember("original")
    block = table.keep(Block(b"1", "piece", "text", handle))
    chains = [i.to_bytes(4, "big") for i in range(25_000)]
    table.save_edits([Edit(chain, "content", block) for chain in chains[::5000]])
    assert len(table.edits(chains)) == 5
