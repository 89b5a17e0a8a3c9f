"""Errors of a memory that a program can tell apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clara_mlx import Busy, Closed, Memory, NoModel, NotFound, ReadOnly, StorageFailed, StoreError
from clara_mlx.store import driver


def test_what_is_not_there(tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db") as memory:
        for act in (memory.original, memory.text, memory.original_bytes, memory.forget):
            with pytest.raises(NotFound, match="m-0123456789"):
                act("m-0123456789")


def test_what_needs_a_model(tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db") as memory:
        memory.remember("a text")
        for act in (lambda: memory.ask("What?"), memory.flush, memory.recompress):
            with pytest.raises(NoModel, match="model"):
                act()
        with pytest.raises(NoModel):
            memory.recall("a text", mode="latent")


def test_what_was_closed(tmp_path: Path) -> None:
    memory = Memory.open(tmp_path / "m.db")
    handle = memory.remember("a text")
    memory.close()
    for act in (lambda: memory.remember("x"), lambda: memory.original(handle), memory.status):
        with pytest.raises(Closed, match="open it again"):
            act()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_what_is_read_only(tmp_path: Path) -> None:
    file = tmp_path / "m.db"
    with Memory.open(file) as memory:
        handle = memory.remember("a text")
    file.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        with Memory.open(file) as memory:
            assert memory.original(handle) == "a text"
            with pytest.raises(ReadOnly, match="not written"):
                memory.remember("another")
    finally:
        tmp_path.chmod(0o700)


def test_what_another_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BUSY_SECONDS", 0.1)
    with Memory.open(tmp_path / "m.db") as memory:
        handle = memory.remember("a text")
        memory.file.settle()
        # Not Python's own sqlite3: two SQLites in one process don't see each other's locks.
        other = driver.driver().connect(str(tmp_path / "m.db"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="try again") as raised, memory.file.write():
            pass
        assert raised.value.transient
        other.execute("ROLLBACK")
        other.close()
        assert memory.original(handle) == "a text"


def test_they_are_all_store_errors() -> None:
    assert issubclass(Busy, StorageFailed) and issubclass(ReadOnly, StorageFailed)
    for kind in (NotFound, NoModel, Closed, StorageFailed):
        assert issubclass(kind, StoreError)
