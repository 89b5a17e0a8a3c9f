"""A model that compresses beside a reader that stays open adds next to nothing to the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory, worker
from tests.support.long_reader import fill_log, log, reader, short_log


def test_compression_waits_for_a_long_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clara: Any
) -> None:
    """It says so when it has waited for long, and goes on by itself."""
    monkeypatch.setattr(worker, "BUSY_SECONDS", 0.3)
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(worker, "PAUSE_SECONDS", 0.05)
    with short_log(tmp_path / "m.db", monkeypatch) as store:
        texts = Memory.open(store.path)
        for number in range(3):
            texts.remember(f"kept {number} " + "words of it " * 20)
        texts.close()
        with reader(store):
            fill_log(store)
            before = log(store).stat().st_size
            with Memory.open(store.path, clara("c16", "e2e")) as memory:
                with pytest.raises(StoreError, match="keeps it open for reading"):
                    memory.flush(60)
                assert log(store).stat().st_size < before + 300_000
                assert memory.status().compressed == 0
        with Memory.open(store.path, clara("c16", "e2e")) as memory:
            memory.flush(120)
            assert memory.status().pending == 0
