"""What every database of a memory keeps to: each test here runs on a file and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import postgres
import pytest

from clara_mlx.store.opening import open_store
from clara_mlx.store.originals import Originals

ENGINES = ("sqlite", "postgres")


@pytest.fixture(params=ENGINES)
def name(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The name of a new memory: a path, or a URL."""
    if request.param == "sqlite":
        yield str(tmp_path / "memory.db")
    else:
        with postgres.new_database() as url:
            yield url


@pytest.fixture
def opened(name: str) -> Iterator[Callable[[], Originals]]:
    """Opens the memory, again each time; whatever was opened is closed afterwards."""
    stores: list[Originals] = []

    def open_it() -> Originals:
        stores.append(open_store(name))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], Originals]) -> Originals:
    """A new memory, opened."""
    return opened()


@pytest.fixture(scope="module", params=ENGINES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A memory for all examples of the tests of a module, which have to clean up."""
    if request.param == "sqlite":
        store = open_store(tmp_path_factory.mktemp("shared") / "memory.db")
        yield store
        store.close()
        return
    with postgres.new_database() as url:
        store = open_store(url)
        yield store
        store.close()
