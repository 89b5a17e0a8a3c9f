"""Damaged files and files of others: what is read is right, or an error says why not."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_files import SHAPE, fill, open_latents
from memory_worker import make_version_1, remember, sha

from clara_mlx.errors import ClaraError
from clara_mlx.store import care, search
from clara_mlx.store.driver import driver
from clara_mlx.store.latent_index import LatentIndex
from clara_mlx.store.migrations import MIGRATIONS
from clara_mlx.store.store import Store


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    path = tmp_path_factory.mktemp("damage") / "m.db"
    return path, fill(path, 60)


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = driver().connect(str(path))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def rows_with_vec(path: Path, sql: str) -> list[tuple[Any, ...]]:
    store = Store(path)
    try:
        return [tuple(row) for row in store.read(sql)]
    finally:
        store.close()


def flip(path: Path, place: int, length: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        old = file.read(length)
        file.seek(place)
        file.write(bytes(byte ^ 0x5A for byte in old))


def find(path: Path, blob: bytes) -> int:
    """Where a blob starts in the file, by a piece of it that lies on one page."""
    data = path.read_bytes()
    for start in range(0, len(blob) - 24, 24):
        if (place := data.find(blob[start : start + 24])) >= 0:
            return place
    raise AssertionError("not in the file")


def readable(path: Path, kept: dict[str, bytes]) -> int:
    """Use everything of a damaged file; only ClaraErrors may be raised, and originals be right.

    Returns:
        The number of originals that could be read.
    """
    count = 0
    try:
        store = Store(path)
    except ClaraError:
        return 0
    query = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    with contextlib.suppress(ClaraError):
        assert isinstance(care.verify(store).problems, list)
    for handle, original in kept.items():
        with contextlib.suppress(ClaraError):
            assert store.original(handle)[0] == original
            count += 1
    handle, gone = next(iter(kept)), list(kept)[-1]
    for use in (
        lambda: list(store.memories()),
        lambda: search.search(store, None, None, "error test", 5, {"source": "build"}),
        lambda: search.search(store, LatentIndex(open_latents(store)), query, "error", 5, None),
        lambda: search.search(
            store, LatentIndex(open_latents(store)), query, None, 5, None, exact=True
        ),
        lambda: store.figures(),
        lambda: remember(store, "something new"),
        lambda: remember(store, kept[handle].decode()),
        lambda: store.forget({"handle": gone}),
    ):
        with contextlib.suppress(ClaraError):
            use()
    store.close()
    return count


# -- damage ----------------------------------------------------------------------------------------


def test_truncated(filled: tuple[Path, dict[str, bytes]], tmp_path: Path) -> None:
    path, kept = filled
    size = path.stat().st_size
    counts = []
    for share in (0.0001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999):
        copy = tmp_path / f"{share}.db"
        shutil.copy(path, copy)
        os.truncate(copy, int(size * share))
        with contextlib.suppress(ClaraError):
            store = Store(copy)
            assert care.verify(store).problems
            store.close()
        counts.append(readable(copy, kept))
    assert counts[0] == 0 and counts[-1] > len(kept) / 2


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_anywhere(
    seed: int, filled: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    path, kept = filled
    rng = random.Random(seed)
    size = path.stat().st_size
    most = 0
    for number in range(8):
        copy = tmp_path / f"{number}.db"
        shutil.copy(path, copy)
        for _ in range(rng.choice((1, 5, 50))):
            # Pages' headers and the first page hold the structure; hit them often.
            page = rng.choice((rng.randrange(size), rng.randrange(size // 10))) // 16384 * 16384
            place = page + rng.choice((rng.randrange(16384), rng.randrange(200)))
            if place >= 100 or rng.random() < 0.1:
                flip(copy, min(place, size - 9), rng.choice((1, 8)))
        most = max(most, readable(copy, kept))
    assert most > 0


def test_a_damaged_original_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    kept = fill(path, 20)
    handle = list(kept)[7]
    ((id, data),) = rows(
        path,
        "SELECT c.id, data FROM contents c JOIN memories m ON m.content_id = c.id "
        f"WHERE handle = '{handle}'",
    )
    flip(path, find(path, data))
    store = Store(path)
    with pytest.raises(ClaraError, match=f"content {id} is damaged"):
        store.original(handle)
    findings = care.verify(store)
    assert findings.damaged_contents == [id] and len(findings.problems) == 1
    for other in kept.keys() - {handle}:
        assert store.original(other)[0] == kept[other]
    store.close()


def test_damaged_latents_are_named_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    fill(path, 20)
    (chunk, data) = rows(path, "SELECT chunk_id, data FROM latents")[9]
    flip(path, find(path, data))
    store = Store(path)
    with pytest.raises(ClaraError, match="verify --repair"):
        open_latents(store).latents([chunk])
    findings = care.verify(store)
    assert findings.damaged_chunks == [chunk] and len(findings.problems) == 1
    assert care.repair(store, findings) == 1
    assert store.backlog.count() == 1
    assert care.verify(store).problems == []
    store.close()


def test_damaged_sketches_are_named_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    fill(path, 20)
    (chunk, bits) = rows_with_vec(path, "SELECT rowid, bits FROM sketches_1")[9]
    flip(path, find(path, bits), 24)
    store = Store(path)
    findings = care.verify(store)
    assert findings.damaged_chunks == [chunk] and "sketch" in findings.problems[0]
    care.repair(store, findings)
    assert care.verify(store).problems == []
    store.close()


def test_a_search_leaves_damaged_latents_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.db"
    fill(path, 20)
    (chunk, data) = rows(path, "SELECT chunk_id, data FROM latents")[9]
    flip(path, find(path, data[100:]))
    store = Store(path)
    table = open_latents(store)
    index = LatentIndex(table)
    query = table.codec.decode([data])[0]
    assert index.search(query, 1)[0][0] == chunk  # its checksum is not looked at
    hits = search.search(store, index, query, None, 10, None)
    assert len(hits) == 10 and chunk not in {hit.chunk_id for hit in hits}
    assert f"the latents of chunks [{chunk}] are damaged" in caplog.text
    words = store.text(store.chunks_by_id([chunk])[chunk].content_id)
    (hit,) = search.search(store, index, query, words, 1, None)
    assert (hit.chunk_id, hit.found_by, hit.cosine) == (chunk, ("text",), None)
    store.close()


def test_missing_sketches_and_those_of_nothing_are_repaired(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    fill(path, 20)
    store = Store(path)
    ((a, b),) = store.read("SELECT min(chunk_id), max(chunk_id) FROM latents")
    with store.write() as connection:
        connection.execute("DELETE FROM sketches_1 WHERE rowid = ?", (a,))
        connection.execute("DELETE FROM latents WHERE chunk_id = ?", (b,))
    findings = care.verify(store)
    assert sorted(findings.damaged_chunks) == sorted([a, b])
    assert findings.problems == [
        f"chunk {a} has no sketch",
        f"chunk {b} has a sketch without latents",
    ]
    assert care.repair(store, findings) == 2
    assert store.backlog.count() == 2
    assert care.verify(store).problems == []
    store.close()


@pytest.mark.parametrize("index", ["chunks_content", "memories_source", "chunk_text_data"])
def test_damaged_index_pages_are_noticed(index: str, tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    kept = fill(path, 60)
    ((root,),) = rows(path, f"SELECT rootpage FROM sqlite_schema WHERE name = '{index}'")
    ((page,),) = rows(path, "PRAGMA page_size")
    flip(path, root * page - 20, 20)  # where its first cells are
    store = Store(path)
    assert care.verify(store).problems
    store.close()
    assert readable(path, kept) == len(kept)


# -- files of others -------------------------------------------------------------------------------


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes\n" * 100)
    with pytest.raises(ClaraError, match=r"notes\.txt.*not a database"):
        Store(path)
    assert path.read_text() == "these are my notes\n" * 100


@pytest.mark.parametrize("version", [0, 1, len(MIGRATIONS), 99])
def test_a_database_of_another_program_is_left_alone(version: int, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = driver().connect(str(path))
    connection.execute("CREATE TABLE contents (id, data)")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ClaraError, match="another program"):
        Store(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if "backup" in p.name] == []


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    fill(path, 2)
    newer = len(MIGRATIONS) + 1
    connection = driver().connect(str(path))
    connection.execute(f"PRAGMA user_version = {newer}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ClaraError, match=f"its format is {newer}.*update clara-mlx"):
        Store(path)
    assert path.read_bytes() == before


def test_an_older_file_is_migrated_and_backed_up(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    kept = make_version_1(path, 10)
    store = Store(path)
    assert {h: sha(store.original(h)[0]) for h in kept} == kept
    assert store.backlog.count() == len(kept)
    assert care.verify(store).problems == []
    store.close()
    backup = tmp_path / "m.db.v1.backup"
    assert rows(backup, "PRAGMA user_version") == [(1,)]
    assert rows(backup, "SELECT count(*) FROM contents") == [(10,)]
    assert backup.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o600
