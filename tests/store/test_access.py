"""A file that can't be written is read; one that is gone or closed is not written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.memory import Memory
from clara_mlx.store.file import Closed
from clara_mlx.store.store import Store
from tests.support.disks import fill, remount, small_disk

TEXT = "what an agent saw: the swordfish " * 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as mounted:
        yield mounted


def keep(path: Path) -> str:
    """Remember a text; returns its handle."""
    with Memory.open(path) as memory:
        return memory.remember(TEXT)


def check_reading(memory: Memory, handle: str) -> None:
    """All acts that only read go on."""
    assert memory.original(handle) == TEXT
    assert memory.recall("swordfish", 1)[0].handle == handle
    assert [stored.handle for stored in memory.list()] == [handle]
    assert memory.status().memories == 1
    assert memory.verify().problems == []


def check_refusals(memory: Memory, cause: str) -> None:
    """All acts that write are refused, and say why."""
    acts: list[Callable[[], Any]] = [
        lambda: memory.remember("more"),
        lambda: memory.forget(where={"after": 0}),
        lambda: memory.import_([]),
        memory.flush,
        memory.recompress,
        memory.vacuum,
    ]
    for act in acts:
        with pytest.raises(StoreError, match=cause):
            act()


# -- file systems that refuse ----------------------------------------------------------------------


def test_a_read_only_file_system(disk: Path) -> None:
    handle = keep(disk / "m.db")
    remount(disk, "ro")
    with Memory.open(disk / "m.db") as memory:
        check_reading(memory, handle)
        check_refusals(memory, "file system is read-only")
    with pytest.raises(StoreError, match=r"[Rr]ead-only"):
        Memory.open(disk / "other.db")
    remount(disk, "rw")
    with Memory.open(disk / "m.db") as memory:
        memory.remember("more")


def test_its_mode_can_not_be_mended(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    handle = keep(disk / "m.db")
    (disk / "m.db").chmod(0o644)
    remount(disk, "ro")
    with Memory.open(disk / "m.db") as memory:
        check_reading(memory, handle)
    assert "others can read it" in caplog.text
    remount(disk, "rw")


def test_with_a_model(disk: Path, clara: Any) -> None:
    """Latents that are there are searched; none are made."""
    model = clara("c16", "e2e")
    with Memory.open(disk / "compressed.db", model) as memory:
        memory.remember(TEXT)
        memory.flush(60)
    keep(disk / "plain.db")
    remount(disk, "ro")
    with Memory.open(disk / "compressed.db", model, floor=-1.0) as memory:
        assert memory.recall("swordfish", 1, mode="latent")
        assert memory.ask("swordfish?").evidence
    with Memory.open(disk / "plain.db", model) as memory:
        assert memory.recall("swordfish", 1)
        with pytest.raises(StoreError, match="file system is read-only"):
            memory.flush(5)
    remount(disk, "rw")


def test_a_log_on_a_read_only_file_system(disk: Path, tmp_path: Path) -> None:
    """A copy that was made while the file was in use: nothing of it is left out in silence."""
    memory = Memory.open(tmp_path / "m.db")
    handle = memory.remember(TEXT)
    for name in ("m.db", "m.db-wal"):
        shutil.copy(tmp_path / name, disk / name)
    memory.close()
    remount(disk, "ro")
    with pytest.raises(StorageFailed, match=r"read-only, and what is in its log \(m.db-wal\)"):
        Memory.open(disk / "m.db")
    remount(disk, "rw")
    with Memory.open(disk / "m.db") as opened:
        assert opened.original(handle) == TEXT


def test_a_full_disk_can_be_read(disk: Path) -> None:
    handle = keep(disk / "m.db")
    ballast = fill(disk)
    for _ in range(2):  # the first one leaves an empty log behind
        with Memory.open(disk / "m.db") as memory:
            check_reading(memory, handle)
            check_refusals(memory, "no space left")
    with pytest.raises(StoreError, match=r"[Nn]o space left"):
        Memory.open(disk / "new" / "m.db")
    ballast.unlink()
    with Memory.open(disk / "m.db") as memory:
        memory.remember("more")
        assert memory.verify().problems == []


def test_a_disk_that_fills_up_while_it_is_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is there is read, and can be forgotten in the space that the log has."""
    with small_disk(tmp_path, "16m") as disk, Memory.open(disk / "m.db") as memory:
        handles = [memory.remember(f"{number} {os.urandom(900).hex()}") for number in range(120)]
        ballast = fill(disk)
        with pytest.raises(StoreError, match="no space left"):
            for _ in range(100):
                memory.remember(os.urandom(20_000).hex())
        others = {stored.handle for stored in memory.list()} - {handles[0]}
        assert memory.forget(handles[0]) == 1
        assert "run `clara-mlx vacuum`" in caplog.text
        assert not memory.has(handles[0]) and all(map(memory.has, others))
        ballast.unlink()
        memory.vacuum()
        assert memory.verify().problems == []


# -- files that are gone ---------------------------------------------------------------------------


def test_a_file_that_was_removed_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with Memory.open(path) as memory:
        handle = memory.remember("one")
        path.unlink()
        for _ in range(2):
            with pytest.raises(StorageFailed, match="was removed while it was open"):
                memory.remember("two")
        with pytest.raises(StorageFailed, match="No such file"):
            memory.status()
        assert memory.original(handle) == "one"
    with Memory.open(path) as memory:
        assert list(memory.list()) == []


@pytest.mark.parametrize("noticed", [True, False])
def test_a_file_that_was_replaced_is_not_written(
    tmp_path: Path, noticed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup that is put back keeps what it holds, and gets nothing of the old file's log."""
    path, backup = tmp_path / "m.db", tmp_path / "backup.db"
    with Memory.open(path) as memory:
        first = memory.remember("one")
    shutil.copy(path, backup)
    with Memory.open(backup) as memory:
        second = memory.remember("two, in the backup only")
    memory = Memory.open(path)
    memory.remember("three, in the log of the file that is replaced")
    os.replace(backup, path)
    if noticed:
        with pytest.raises(StorageFailed, match="was replaced by another file"):
            memory.remember("four")
        with pytest.raises(StorageFailed, match="was replaced"):
            memory.forget(first)
    memory.close()
    assert "its log is m.db-wal." in caplog.text
    with Memory.open(path) as memory:
        assert [stored.handle for stored in memory.list()] == [first, second]
        assert memory.verify().problems == []


def test_a_link_that_leads_elsewhere_now(tmp_path: Path) -> None:
    keep(tmp_path / "a.db")
    keep(tmp_path / "b.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    with Memory.open(tmp_path / "link.db") as memory:
        (tmp_path / "link.db").unlink()
        (tmp_path / "link.db").symlink_to(tmp_path / "b.db")
        with pytest.raises(StorageFailed, match="was replaced"):
            memory.remember("x")


# -- closed, and never opened ----------------------------------------------------------------------


def test_a_closed_memory_refuses_every_act(tmp_path: Path) -> None:
    handle = keep(tmp_path / "m.db")
    memory = Memory.open(tmp_path / "m.db")
    memory.close()
    memory.close()
    acts: list[Callable[[], Any]] = [
        lambda: memory.remember("x"),
        lambda: memory.recall("x"),
        lambda: memory.original(handle),
        lambda: memory.original_bytes(handle),
        lambda: memory.has(handle),
        lambda: memory.forget(handle),
        lambda: list(memory.list()),
        lambda: memory.export((tmp_path / "export").open("w")),
        lambda: memory.import_([]),
        memory.status,
        memory.verify,
        memory.vacuum,
        memory.flush,
        memory.recompress,
        memory.backlog,
    ]
    for act in acts:
        with pytest.raises(Closed, match="closed; open it again"):
            act()
    assert Store(tmp_path / "m.db").figures()["memories"] == 1


def test_an_open_that_fails_leaves_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Memory.open(tmp_path / ("m" * 253))  # the log's name is too long
    assert list(tmp_path.iterdir()) == []
    empty = tmp_path / ("e" * 253)
    empty.touch()
    with pytest.raises(StoreError):
        Memory.open(empty)
    assert list(tmp_path.iterdir()) == [empty]  # another's
