"""What waits beside the file is there for everybody, whether or not it has been moved yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from clara_mlx.context.table import Block, BlockTable
from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory
from clara_mlx.store import care, search, settled_file
from clara_mlx.store.mover import Mover
from clara_mlx.store.protocol import HandleTaken
from clara_mlx.store.store import Store
from tests.support.disks import remount, small_disk
from tests.support.long_reader import fill_log, log, reader, remember, short_log, waiting


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with short_log(tmp_path / "m.db", monkeypatch) as opened:
        yield opened


def in_file(store: Store) -> int:
    """The number of memories that the file itself has."""
    return int(store.connection.execute("SELECT count(*) FROM memories").fetchone()[0])


def soon(holds: Callable[[], bool]) -> bool:
    """Whether something holds within half a minute."""
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_handles_and_counts_are_there_without_moving_anything(store: Store) -> None:
    with reader(store):
        handles = fill_log(store)
        moved = in_file(store)
        drawn = remember(store, 5000)
        chosen = remember(store, 5001, handle="m-chosen")
        raw = store.remember(b"\xff", "\udcff", [(0, 1, None)], kind="bytes")
        other = Store(store.path)
        for opened in (store, other):
            assert opened.has(drawn) and opened.has(chosen) and not opened.has("m-nobody")
            assert opened.original(chosen)[0].startswith(b"text 5001 ")
            assert opened.original(raw) == (b"\xff", "bytes")
            with pytest.raises(StoreError, match="no memory 'm-nobody'"):
                opened.original("m-nobody")
            figures = opened.figures()
            assert (figures["memories"], figures["waiting"]) == (moved + 3, 3)
        BlockTable(store).block(b"any")
        store.backlog.count()
        assert in_file(store) == moved == len(handles) and waiting(store).exists()
        other.close()


def test_a_handle_is_taken_while_its_memory_waits(store: Store) -> None:
    with reader(store):
        fill_log(store)
        remember(store, 5000, handle="m-chosen")
        with pytest.raises(HandleTaken, match="there is a memory 'm-chosen' already"):
            remember(store, 5001, handle="m-chosen")
        store.settle()
        with pytest.raises(HandleTaken):
            remember(store, 5001, handle="m-chosen")
    assert store.original("m-chosen")[0].startswith(b"text 5000 ")
    assert not waiting(store).exists() and care.verify(store).problems == []


def test_what_is_named_comes_before_its_turn_and_only_once(store: Store) -> None:
    """A block needs its memory in the file; the others go on waiting."""
    with reader(store):
        handles = fill_log(store)
        waits = [remember(store, 5000 + number) for number in range(8)]
        block = Block(b"digest", "piece", "[clara block]", waits[5])
        assert BlockTable(store).keep(block, [waits[2], handles[0]]) == block
        assert in_file(store) == len(handles) + 2 and waiting(store).exists()
        assert next(store.memories({"handle": [waits[7]]})).handle == waits[7]
        assert store.figures()["waiting"] == 5
        assert all(map(store.has, waits))
    assert store.forget({"handle": waits[5]}) == 1  # which moves the others
    assert not waiting(store).exists() and not store.has(waits[5])
    kept = [memory.handle for memory in store.memories()]
    assert sorted(kept) == sorted({*handles, *waits} - {waits[5]})
    assert care.verify(store).problems == []


def test_a_crash_does_not_double_what_came_early(store: Store) -> None:
    with reader(store):
        handles = fill_log(store)
        handles += [remember(store, 5000 + number) for number in range(4)]
        store.bring(handles[-2:-1])
        before = waiting(store).read_bytes()
        store.settle()
        waiting(store).write_bytes(before)  # as if the power had gone before it was removed
        assert sorted(memory.handle for memory in store.memories()) == sorted(handles)
    assert care.verify(store).problems == []


def test_a_file_put_back_from_a_backup_loses_neither_of_two(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The memory file of before, with the arrivals of today."""
    with reader(store):
        handles = fill_log(store)
        remember(store, 5000)
        remember(store, 5001, handle="m-twice")
    store.connection.execute(
        "INSERT INTO memories (handle, content_id, created_at) SELECT 'm-twice', id, 0 "
        "FROM contents LIMIT 1"
    )
    assert len(list(store.memories())) == len(handles) + 3
    assert "m-twice is m-" in caplog.text and not waiting(store).exists()


def test_what_waits_is_moved_though_nobody_asks(store: Store) -> None:
    with reader(store):
        handles = fill_log(store)
        handles += [remember(store, 5000 + number) for number in range(5)]
        assert waiting(store).exists()
    assert soon(lambda: not waiting(store).exists())
    assert in_file(store) == len(handles)


def test_a_search_goes_on_after_a_time_and_a_thread_moves_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settled_file, "_SLICE_SECONDS", 0.0)
    monkeypatch.setattr(search, "SEARCH_SECONDS", 0.0)
    with reader(store):
        fill_log(store)
        for number in range(30):
            remember(store, 5000 + number)
        newest = remember(store, 5030)

        def found() -> bool:
            hits = search.search(store, None, None, f"{5030 * 7919 + 150:x}", 1, None)
            return hits[0].handle == newest

        assert not found()
        assert "can't be found by a search yet" in caplog.text
    assert soon(lambda: not waiting(store).exists())
    assert found()


def test_another_writer_is_not_waited_for_by_the_thread(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing ends at once, though another program has the file's write lock."""
    with reader(store):
        fill_log(store)
        remember(store, 5000)
        writer = Store(store.path)
        writer.connection.execute("BEGIN IMMEDIATE")
    time.sleep(0.5)
    begun = time.monotonic()
    store.close()
    assert time.monotonic() - begun < 5
    writer.connection.execute("ROLLBACK")
    writer.close()
    assert waiting(store).exists()


def test_a_drawn_handle_that_is_taken_is_drawn_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(patch: pytest.MonkeyPatch, *names: str) -> None:
        drawn = iter(names)
        fake = SimpleNamespace(token_hex=lambda _: next(drawn))
        patch.setattr("clara_mlx.store.newcomer.secrets", fake)

    with monkeypatch.context() as patch:
        draw(patch, "aa", "aa", "aa", "bb")
        assert [remember(store, number) for number in range(2)] == ["m-aa", "m-bb"]
    with reader(store), monkeypatch.context() as patch:
        fill_log(store)
        draw(patch, "aa", "cc", "bb", "cc", "dd")
        assert [remember(store, 5000 + number) for number in range(2)] == ["m-cc", "m-dd"]
    assert {"m-aa", "m-bb", "m-cc", "m-dd"} <= {memory.handle for memory in store.memories()}


def test_named_memories_of_an_import_wait_too(tmp_path: Path, store: Store) -> None:
    with Memory.open(tmp_path / "other.db") as other:
        for number in range(60):
            other.remember(f"exported {number} " + f"{number:x} " * 300)
        with (tmp_path / "export.jsonl").open("w") as file:
            other.export(file)
    with reader(store), Memory.open(store.path) as memory:
        handles = fill_log(store)
        before = log(store).stat().st_size
        with (tmp_path / "export.jsonl").open() as file:
            assert memory.import_(file) == 60
        assert log(store).stat().st_size < before + (1 << 19)
        assert memory.status().memories == len(handles) + 60


def test_what_waits_beside_a_file_that_can_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Handles find it; a search goes on at once, and the log says what it misses."""
    monkeypatch.setattr(Mover, "start", lambda self: None)
    with small_disk(tmp_path, "32m") as disk:
        with short_log(disk / "m.db", monkeypatch) as store, reader(store):
            handles = fill_log(store)
            waits = remember(store, 5000)
            assert waiting(store).exists()
        remount(disk, "ro")
        with Memory.open(disk / "m.db") as memory:
            assert memory.has(waits) and memory.original_bytes(waits).startswith(b"text 5000 ")
            assert memory.status().memories == len(handles) + 1
            assert waits not in {hit.handle for hit in memory.recall(f"{5000 * 7919:x}")}
            assert "what was remembered last can't be found yet" in caplog.text
        remount(disk, "rw")
