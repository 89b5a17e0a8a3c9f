"""The store: originals and occurrences, filters before the top k, words that are found."""

from __future__ import annotations

import os
import random
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.store import care, driver, search, sketch_table
from clara_mlx.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = Store(tmp_path / "memory.db")
    yield opened
    opened.close()


def remember(store: Store, text: str, **options: Any) -> str:
    """Remember a text as one chunk."""
    return store.remember(text.encode(), text, [(0, len(text), None)], **options)


def found(store: Store, query: str, k: int = 10, **where: Any) -> list[str]:
    """Handles that text search finds."""
    results = search.search(store, None, None, query, k, where or None)
    return [result.handle for result in results]


# -- the file ------------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone_and_well_kept(store: Store) -> None:
    remember(store, "something")
    for file in store.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    pragmas = {"journal_mode": "wal", "foreign_keys": 1, "secure_delete": 1, "synchronous": 2}
    assert {name: store.read(f"PRAGMA {name}")[0][0] for name in pragmas} == pragmas


def test_what_does_not_wait_for_the_disk_is_there_and_the_next_waits(store: Store) -> None:
    def waits() -> bool:
        return bool(store.read("PRAGMA synchronous")[0][0] == 2)

    with store.write(synced=False) as connection:
        assert not waits()
        connection.execute("INSERT INTO meta VALUES ('a', 1)")
    assert waits()
    with pytest.raises(ZeroDivisionError), store.write(synced=False) as connection:
        connection.execute("INSERT INTO meta VALUES ('b', 1 / ?)", (1 // 0,))
    assert waits()
    other = Store(store.path)
    assert [row[0] for row in other.read("SELECT key FROM meta WHERE key IN ('a', 'b')")] == ["a"]
    other.close()


def test_removals_are_noticed(store: Store) -> None:
    handle, other_handle = remember(store, "one"), remember(store, "two")
    since = store.removals()
    remember(store, "three")
    assert store.removals() == since
    store.forget({"handle": handle})
    assert store.removals() != since
    since = store.removals()
    other = Store(store.path)
    other.forget({"handle": other_handle})
    other.close()
    assert store.removals() != since


def test_one_driver_that_loads_vec0() -> None:
    module = driver.driver()
    assert module is driver.driver()
    assert module.sqlite_version_info >= (3, 43)


def test_without_a_driver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_LEAST_VERSION", (99, 0, 0))
    driver.driver.cache_clear()
    with pytest.raises(StoreError, match=r"older than .*pip install pysqlite3"):
        driver.driver()
    monkeypatch.undo()
    driver.driver.cache_clear()


def test_a_locked_file_and_a_full_disk_may_pass(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "BUSY_SECONDS", 0.05)
    other = Store(store.path)
    with store.write(), pytest.raises(StorageFailed, match="another process") as locked:
        remember(other, "meanwhile")
    assert locked.value.transient
    other.connection.execute("PRAGMA max_page_count = 1")  # no page more than the file has
    with pytest.raises(StorageFailed, match="disk is full") as full:
        remember(other, random.Random(0).randbytes(100_000).hex())
    assert full.value.transient
    other.close()


def test_a_damaged_file_does_not_pass(store: Store) -> None:
    remember(store, "something")
    store.empty_log()
    store.close()
    with store.path.open("r+b") as file:
        file.seek(100)
        file.write(bytes(range(1, 256)) * 600)
    with pytest.raises(StorageFailed) as damaged:
        Store(store.path)
    assert not damaged.value.transient


# -- originals -----------------------------------------------------------------------------------


def test_content_is_stored_once_and_every_occurrence_kept(store: Store) -> None:
    a = remember(store, "the same", source="pytest", metadata={"run": 1})
    b = remember(store, "the same", source="git", metadata={"run": 2})
    other_kind = store.remember(b"the same", "the same", [(0, 8, None)], kind="bytes")
    figures = store.figures()
    assert (figures["memories"], figures["contents"], figures["chunks"]) == (3, 2, 2)
    assert [m.metadata for m in store.memories()] == [{"run": 1}, {"run": 2}, {}]
    assert [m.metadata for m in store.memories(newest=2)] == [{}, {"run": 2}]
    assert store.original(a) == store.original(b) == (b"the same", "text")
    assert store.original(other_kind) == (b"the same", "bytes")
    store.forget({"handle": a})
    assert store.original(b) == (b"the same", "text")  # b still holds the content
    assert found(store, "same") == [other_kind, b] or found(store, "same") == [b, other_kind]


def test_no_such_handle(store: Store) -> None:
    with pytest.raises(StoreError, match="no memory 'm-x'"):
        store.original("m-x")


@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": object()}])
def test_metadata_must_be_json(store: Store, metadata: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="metadata must be JSON"):
        remember(store, "x", metadata=metadata)
    assert store.figures()["memories"] == 0


# -- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "tests/test_io.py::test_load",
        "test_load",
        "load",
        "getUserName",
        "username getUserName",
        "user",
        "name",
        "3f9a1c02be",
        "3f9a1c",
        "HTTPServer",
        "server",
        "FileNotFoundError: data/config.toml",
        "Größe",
        'what about "test_io"?',
    ],
)
def test_names_paths_parts_and_hex_ids_are_found(store: Store, query: str) -> None:
    wanted = remember(
        store,
        "FAILED tests/test_io.py::test_load getUserName HTTPServer commit 3f9a1c02be17\n"
        "FileNotFoundError: data/config.toml Größe 7",
    )
    for i in range(20):
        remember(store, f"nothing of it here, line {i}")
    assert found(store, query)[:1] == [wanted]


@pytest.mark.parametrize("query", ["", "  ", "NEAR(", '"', "* AND OR NOT", "-", "a:b^2", "\ud800"])
def test_no_query_is_a_syntax_error(store: Store, query: str) -> None:
    remember(store, "some text")
    assert isinstance(found(store, query), list)


def test_the_exact_name_ranks_first(store: Store) -> None:
    for i in range(5):
        remember(store, f"tests and io and load and test_{i} and py")
    exact = remember(store, "tests/test_io.py::test_load")
    assert found(store, "tests/test_io.py::test_load")[0] == exact


# -- sketches --------------------------------------------------------------------------------------


def test_all_sketches_at_once_are_those_one_by_one(store: Store) -> None:
    rng = random.Random(1)
    kept = {id: rng.randbytes(32) for id in rng.sample(range(1, 5000), 700)}
    with store.write() as connection:
        sketch_table.create(connection, 7, 256)
        sketch_table.add(connection, 7, kept.items())
        gone = rng.sample(sorted(kept), 300)
        sketch_table.remove(connection, 7, gone)
    kept = {id: bits for id, bits in kept.items() if id not in gone}
    for _ in range(2):
        table = sketch_table.read_new(store.connection, 7, 256, after=0)
        assert table is not None
        ids, sketches = table
        assert dict(zip(ids.tolist(), map(bytes, sketches), strict=True)) == kept
        assert {row[0]: row[1] for row in store.read("SELECT rowid, bits FROM sketches_7")} == kept
        with store.write() as connection:
            sketch_table.rebuild(connection, 7, 256)
    store.read("UPDATE sketches_7_chunks SET rowids = x'00'")
    assert sketch_table.read_new(store.connection, 7, 256, after=0) is None


# -- leases and limits ---------------------------------------------------------------------------


def test_a_lease_has_one_owner_until_it_expires(store: Store) -> None:
    assert store.backlog.take_lease("x", "a", 1.5)
    assert store.backlog.take_lease("x", "a", 1.5)
    assert not store.backlog.take_lease("x", "b", 1.5)
    time.sleep(1.6)
    assert store.backlog.take_lease("x", "b", 10)
    store.backlog.give_up_lease("x", "a")  # not a's any more
    assert not store.backlog.take_lease("x", "a", 10)
    store.backlog.give_up_lease("x", "b")
    assert store.backlog.take_lease("x", "a", 10)


def test_eviction_forgets_the_oldest_first(store: Store) -> None:
    handles = [remember(store, os.urandom(4000).hex(), created_at=float(i)) for i in range(60)]
    before = store.used_bytes()
    forgotten = care.evict(store, before // 2)
    assert forgotten == handles[: len(forgotten)]
    assert store.used_bytes() <= before // 2
    assert [m.handle for m in store.memories()] == handles[len(forgotten) :]
    assert care.verify(store).problems == []
