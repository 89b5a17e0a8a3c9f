"""A memory beside which a reader stays open, with a log so short that few texts reach its limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.store import driver, file
from clara_mlx.store.store import Store

LOG_BYTES = 1 << 20


@contextmanager
def short_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A memory file whose log counts as long above `LOG_BYTES`."""
    monkeypatch.setattr(file, "LOG_BYTES", LOG_BYTES)
    opened = Store(path)
    yield opened
    opened.close()


@contextmanager
def reader(store: Store) -> Iterator[None]:
    """A reader that stays open, as a backup by another program is."""
    connection = driver.connect(store.path)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM memories").fetchone()
    yield
    connection.close()


def remember(store: Store, number: int, **options: Any) -> str:
    text = f"text {number} " + " ".join(f"{number * 7919 + i:x}" for i in range(300))
    return store.remember(text.encode(), text, [(0, 99, None), (99, len(text), None)], **options)


def fill_log(store: Store) -> list[str]:
    """Remember until the log is held up."""
    handles = []
    while not store.log_is_held_up():
        handles.append(remember(store, len(handles)))
    return handles


def log(store: Store) -> Path:
    return Path(f"{store.path}-wal")


def waiting(store: Store) -> Path:
    return Path(f"{store.path}-arrivals")
