"""Beside a reader that stays open, the log stays short, and what is remembered is found at once.

The log's limit is made small here, so that few texts reach it; the full size runs each night.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.errors import StorageFailed
from clara_mlx.store import arrivals, care, file, search
from clara_mlx.store.store import Store
from tests.support.long_reader import (
    LOG_BYTES,
    fill_log,
    log,
    reader,
    remember,
    short_log,
    waiting,
)
from tests.support.sizes import sized


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with short_log(tmp_path / "m.db", monkeypatch) as opened:
        yield opened


def check(store: Store, handles: list[str]) -> None:
    """All of these and nothing else are there, in their order, found by words, and sound."""
    assert [memory.handle for memory in store.memories()] == handles
    last = len(handles) - 1
    assert search.search(store, None, None, f"{last * 7919 + 150:x}", 1, None)
    assert care.verify(store).problems == []


def test_beside_a_reader_the_log_stays_short(store: Store) -> None:
    handles = [remember(store, 0)]
    with reader(store):
        handles += [remember(store, number) for number in range(1, 200)]
        assert LOG_BYTES < log(store).stat().st_size < 1.5 * LOG_BYTES
        assert waiting(store).stat().st_mode & 0o777 == 0o600
        other = Store(store.path)
        check(other, handles)  # whoever reads moves them
        other.close()
        assert not waiting(store).exists()
    check(store, handles)


def test_when_the_reader_has_left_the_log_becomes_short(store: Store) -> None:
    with reader(store):
        handles = fill_log(store)
        handles += [remember(store, len(handles)) for _ in range(5)]
        assert waiting(store).exists()
    handles += [remember(store, len(handles)) for _ in range(5)]
    assert log(store).stat().st_size < LOG_BYTES and not waiting(store).exists()
    check(store, handles)


def test_a_write_of_any_kind_makes_the_log_short(store: Store) -> None:
    with reader(store):
        fill_log(store)
    store.backlog.note_failure(1, "any")
    assert log(store).stat().st_size < LOG_BYTES


def test_too_many_do_not_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clara_mlx.store.settled_file._MOST_WAITING", 20_000)
    monkeypatch.setattr("clara_mlx.store.settled_file._SLICE_SECONDS", 0.0)
    with reader(store):
        handles = fill_log(store)
        for _ in range(60):
            handles.append(remember(store, len(handles)))
        ((moved,),) = store.connection.execute("SELECT count(*) FROM memories").fetchall()
        assert len(handles) - 30 < moved < len(handles)
    check(store, handles)


def test_all_kinds_of_memories_wait(store: Store) -> None:
    """The same content as one that is there, as one that waits, and content of bytes."""
    with reader(store):
        first = fill_log(store)
        content = store.original(first[0])[0]
        again = store.remember(content, content.decode(), [(0, 9, None)], metadata={"n": 1})
        about: dict[str, Any] = {"kind": "bytes", "source": "s", "session": "e"}
        raw = [store.remember(b"\xff\0", "\udcff\0", [(0, 2, 7)], **about) for _ in range(2)]
        lone = store.remember(b"\xed\xa0\x80", "\ud800", [(0, 1, None)], created_at=5.5)
        empty = store.remember(b"", "", [])
        assert waiting(store).exists()
    assert store.original(again) == (content, "text")
    assert [store.original(handle) for handle in raw] == [(b"\xff\0", "bytes")] * 2
    assert store.original(lone) == (b"\xed\xa0\x80", "text") and store.original(empty)[0] == b""
    found = {memory.handle: memory for memory in store.memories()}
    assert found[again].metadata == {"n": 1} and found[lone].created_at == 5.5
    assert (found[raw[0]].source, found[raw[0]].session) == ("s", "e")
    assert care.verify(store).problems == []


def test_what_is_forgotten_does_not_wait_either(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader(store):
        fill_log(store)
        secret = store.remember(b"swordfish", "swordfish", [(0, 9, None)])
        assert b"swordfish" in waiting(store).read_bytes()
        monkeypatch.setattr(file, "BUSY_SECONDS", 0.1)  # the reader does not let go
        store.connection.execute("PRAGMA busy_timeout = 100")
        assert store.forget({"handle": secret}) == 1
        assert not waiting(store).exists()
    store.empty_log()
    assert not any(b"swordfish" in path.read_bytes() for path in store.path.parent.iterdir())


# -- crashes and faults --------------------------------------------------------------------------

_WORKER = """
import sys
from clara_mlx.store import file
from clara_mlx.store.store import Store
file.LOG_BYTES = int(sys.argv[2])
store = Store(sys.argv[1])
for number in range(int(sys.argv[3]), 10_000):
    text = f"text {number} " + " ".join(f"{number * 7919 + i:x}" for i in range(300))
    print(store.remember(text.encode(), text, [(0, len(text), None)]), flush=True)
    if number % 40 == 39:
        list(store.memories())
"""


def worker(store: Store, first: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WORKER, str(store.path), str(LOG_BYTES // 4), str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.alone
def test_a_kill_loses_nothing(store: Store) -> None:
    acknowledged: list[str] = []
    with reader(store):
        for round in range(sized(4, 40)):
            process = worker(store, 1000 * round)
            assert process.stdout
            acknowledged += [process.stdout.readline().strip() for _ in range(30 + 7 * round % 50)]
            process.send_signal(signal.SIGKILL)
            acknowledged += process.stdout.read().split()
            process.wait()
        assert waiting(store).exists()
    handles = [memory.handle for memory in store.memories()]
    assert set(acknowledged) <= set(handles)
    assert len(handles) <= len(acknowledged) + sized(4, 40)  # those being remembered at the kill
    assert care.verify(store).problems == []


def test_several_at_once(store: Store) -> None:
    handles: list[str] = []

    def work(first: int) -> None:
        for number in range(first, first + 40):
            handles.append(remember(store, number))
            if number % 15 == 0:
                list(store.memories())

    with reader(store):
        handles += fill_log(store)
        process = worker(store, 50_000)
        threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(1, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        process.kill()
        assert process.stdout
        handles += process.stdout.read().split()
        process.wait()
    found = [memory.handle for memory in store.memories()]
    assert set(handles) <= set(found) and len(found) == len(set(found)) <= len(handles) + 1
    assert care.verify(store).problems == []


@pytest.mark.parametrize("tail", [b"\1", b"\0" * 8, b"\xff" * 40, bytes(range(200))])
def test_an_unfinished_last_record_is_left_out(store: Store, tail: bytes) -> None:
    with reader(store):
        handles = fill_log(store)
        handles += [remember(store, len(handles)) for _ in range(3)]
        with waiting(store).open("ab") as end:
            end.write(tail)
        handles += [remember(store, len(handles)) for _ in range(3)]
        with waiting(store).open("ab") as end:
            end.write(tail)
    check(store, handles)
    assert not waiting(store).exists()


def test_a_crash_between_moving_and_removing_doubles_nothing(store: Store) -> None:
    with reader(store):
        handles = fill_log(store)
        handles += [remember(store, len(handles)) for _ in range(3)]
        before = waiting(store).read_bytes()
        check(store, handles)
        waiting(store).write_bytes(before)  # as if the power had gone before it was removed
        check(store, handles)
        handles += [remember(store, len(handles)) for _ in range(3)]
    check(store, handles)


@pytest.mark.parametrize("content", [b"", b"something else\n" * 20])
def test_arrivals_of_another_memory_are_set_aside(
    store: Store, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that was deleted and made anew must not get back what was in the old one."""
    with reader(store):
        handles = fill_log(store)
        remember(store, 10_000)
        foreign = waiting(store).read_bytes()
        handles = [memory.handle for memory in store.memories()]
    other = Store(tmp_path / "other.db")
    handle = remember(other, 0)
    waiting(other).write_bytes(content or foreign)
    check(other, [handle])
    assert "not of this memory file" in caplog.text and not waiting(other).exists()
    assert len(list(tmp_path.glob("other.db-arrivals.*"))) == 1
    other.close()
    check(store, handles)


def test_a_full_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is acknowledged that is not kept, and what is there can be read."""
    with reader(store):
        handles = fill_log(store)
        handles.append(remember(store, len(handles)))
        write = os.pwrite
        with monkeypatch.context() as full:

            def fail(file: int, content: Any, start: int) -> int:
                write(file, bytes(content)[:5], start)
                raise OSError(errno.ENOSPC, "No space left on device")

            full.setattr(os, "pwrite", fail)
            with pytest.raises(StorageFailed, match="disk is full") as error:
                remember(store, 5000)
            assert error.value.transient
        handles.append(remember(store, len(handles)))
        moved = arrivals.Arrivals.take
        with monkeypatch.context() as full:

            def refuse(*_: Any) -> Any:
                raise StorageFailed("the disk is full", transient=True)

            full.setattr(arrivals.Arrivals, "take", refuse)
            assert len(list(store.memories())) == len(handles) - 2
        assert arrivals.Arrivals.take is moved
    check(store, handles)


@pytest.mark.alone
@pytest.mark.skipif(sized(0, 1) == 0, reason="takes minutes; runs each night")
def test_five_thousand_texts_beside_a_reader(tmp_path: Path) -> None:
    store = Store(tmp_path / "m.db")
    with reader(store):
        handles = []
        for number in range(5000):
            text = f"text {number} " + " ".join(f"{number * 7919 + i:x}" for i in range(1500))
            handles.append(store.remember(text.encode(), text, [(0, len(text), None)]))
            assert log(store).stat().st_size < 64_000_000
    check(store, handles)
    store.close()
