"""Killed by SIGKILL at any moment, a memory loses nothing that it acknowledged.

`bench/stress.py kill` does more of the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_worker import Ledger, Worker, make_version_1

from clara_mlx.memory import Memory
from clara_mlx.store.store import Store


@pytest.mark.parametrize(
    ("job", "kills", "within"),
    [("remember", 15, 0.15), ("forget", 15, 0.15), ("vacuum", 15, 0.2)],
)
def test_killed_while_it_works(job: str, kills: int, within: float, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "m.db")
    for seed in range(kills):
        ledger.kill(job, seed, within)
    assert ledger.kept


def test_killed_while_it_migrates(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    kept = make_version_1(old, 60)
    unfinished = 0
    for seed in range(12):
        path = tmp_path / str(seed) / "m.db"
        path.parent.mkdir()
        shutil.copy(old, path)
        ledger = Ledger(path)
        ledger.kept = dict(kept)
        unfinished += ["migrated"] not in ledger.kill("migrate", seed, 0.04)
        backups = [p.name for p in path.parent.iterdir() if "backup" in p.name]
        assert backups == ["m.db.v1.backup"]
        store = Store(path.parent / "m.db.v1.backup")  # a whole memory of its own
        assert store.figures()["memories"] == len(kept)
        assert store.backlog.count() == len(kept)
        store.close()
    assert unfinished


def test_killed_while_it_compresses(
    folder: Callable[..., Path], clara: Callable[..., Any], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "m.db")
    for seed in range(5):
        ledger.kill("compress", seed, 0.8, folder("c16", "e2e"))
    with Memory.open(ledger.path, clara("c16", "e2e")) as memory:
        memory.flush(60)  # at once: the dead worker's lease doesn't hold it up
        status = memory.status()
        assert status.pending == status.failed == 0
        assert status.compressed == status.chunks >= len(ledger.kept) > 0
    ledger.check()


def test_text_remembered_by_a_killed_process_is_compressed_by_the_next(
    clara: Callable[..., Any], tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "m.db")
    worker = Worker("remember", ledger.path, 5)
    ledger.note([worker.out.readline().split() for _ in range(20)])
    ledger.note(worker.kill_after(0))
    ledger.kills += 1
    assert len(ledger.kept) >= 20
    with Memory.open(ledger.path, clara("c16", "e2e")) as memory:
        memory.flush(60)
        assert memory.status().compressed == memory.status().chunks
        assert memory.verify().problems == []
    ledger.check()
