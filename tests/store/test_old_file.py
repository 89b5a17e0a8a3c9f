"""A memory file of an earlier version opens, is sound, and gives everything back.

`data/version_3.db.gz` was written by commit a151665, before the store was taken apart: originals of
both kinds, latents that are centred, a backlog with a failure, and the blocks and edits of
conversations. `data/version_3.json` is what that commit read from it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clara_mlx.store import care, reindexing, search
from clara_mlx.store.latent_index import LatentIndex
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.store import Store

DATA = Path(__file__).parent / "data"
EXPECTED: dict[str, Any] = json.loads((DATA / "version_3.json").read_text())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "m.db"
    path.write_bytes(gzip.decompress((DATA / "version_3.db.gz").read_bytes()))
    store = Store(path)
    yield store
    store.close()


def schema(store: Store) -> set[tuple[str, ...]]:
    return {tuple(row) for row in store.read("SELECT type, name, tbl_name, sql FROM sqlite_schema")}


def test_it_is_sound_and_complete(store: Store) -> None:
    assert care.verify(store).problems == []
    read = {
        memory.handle: hashlib.sha256(store.original(memory.handle)[0]).hexdigest()
        for memory in store.memories()
    }
    assert read == EXPECTED["originals"]
    left_out = ("path", "file_bytes", "waiting")
    figures = {name: n for name, n in store.figures().items() if name not in left_out}
    figures |= store.backlog.figures()
    assert figures == EXPECTED["figures"]
    assert store.backlog.pending(1000) == EXPECTED["pending"]
    session = [list(astuple(memory)) for memory in store.memories({"session": "s1"})]
    assert session[:5] == EXPECTED["memories"]


def test_it_has_todays_schema(store: Store, tmp_path: Path) -> None:
    fresh = Store(tmp_path / "fresh.db")
    LatentTable.open(fresh, "a model", 2, 64, "int8")  # with its table of sketches
    assert schema(store) == schema(fresh)
    fresh.close()


@pytest.mark.parametrize(("name", "exact"), [("by latents", False), ("exact", True)])
def test_searches_by_latents_find_the_same(store: Store, name: str, exact: bool) -> None:
    index = LatentIndex(LatentTable.open(store, "0123456789abcdef", 2, 64, "int8"))
    query = np.array(EXPECTED["query"], np.float32)
    hits = search.search(store, index, query, None, 8, None, exact=exact)
    found = [[h.handle, list(h.found_by), h.start, h.end, h.line] for h in hits]
    assert found == [[h[0], *h[3:]] for h in EXPECTED[name]]
    for hit, (_, score, cosine, *_) in zip(hits, EXPECTED[name], strict=True):
        assert hit.score == pytest.approx(score, abs=1e-5)
        assert hit.cosine == (None if cosine is None else pytest.approx(cosine, abs=1e-5))


@pytest.mark.parametrize("again", [False, True], ids=["before", "after"])
def test_words_are_found_before_and_after_they_are_indexed_again(store: Store, again: bool) -> None:
    if again:
        while reindexing.work(store, 1.0):
            pass
    found = search.search(store, None, None, "getUserName kernel 日本", 100, None)
    assert {hit[0] for hit in EXPECTED["by words"]} <= {hit.handle for hit in found}


def test_what_was_indexed_differently_is_indexed_again(store: Store) -> None:
    texts = [store.original(memory.handle)[0] for memory in store.memories()]
    assert any("日本".encode() in text for text in texts)
    assert not search.search(store, None, None, "本", 100, None)  # within a run of characters
    while reindexing.work(store, 0):
        pass
    assert search.search(store, None, None, "本", 100, None)
    assert search.search(store, None, None, "git", 100, None)  # the source of memories
    assert care.verify(store).problems == []
    assert not reindexing.work(store, 1.0)


def test_indexing_again_goes_on_where_it_stopped_and_gives_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindexing, "_TOGETHER", 3)
    rows = "SELECT value FROM meta WHERE key = 'reindex chunks'"
    ((first,),) = store.read(rows)
    assert reindexing.work(store, 0)  # one step
    ((second,),) = store.read(rows)
    assert first - 10 < second < first  # three rows, whose ids may have gaps
    other = Store(store.path)
    with other.write():  # another process writes: nothing is done, and nobody waits
        started = time.monotonic()
        assert not reindexing.work(store, 5)
        assert time.monotonic() - started < 2
    assert store.read(rows)[0][0] == second
    while reindexing.work(other, 0):  # another process goes on
        pass
    assert store.read(rows) == [] and not reindexing.work(store, 5)
    assert search.search(store, None, None, "本", 100, None)
    other.close()


def test_blocks_and_edits_are_kept_and_go_with_their_memory(store: Store) -> None:
    edits = [
        [
            row["chain"].decode(),
            row["part"],
            row["text"],
            row["handle"],
            row["explains"],
            None
            if row["body"] is None
            else zlib.decompress(row["body"]).decode("utf-8", "surrogatepass"),
        ]
        for row in store.read(
            "SELECT e.*, b.text, b.handle, b.body FROM edits e "
            "JOIN blocks b ON b.digest = e.block ORDER BY chain"
        )
    ]
    assert edits == EXPECTED["edits"]
    mentions = store.read("SELECT handle, hex(block) FROM mentions ORDER BY handle")
    assert [list(row) for row in mentions] == EXPECTED["mentions"]
    store.forget({"handle": "m-0000000002"})  # a block mentions it
    kinds = [row[0] for row in store.read("SELECT kind FROM blocks ORDER BY kind")]
    assert kinds == ["fold", "note"]
    assert store.read("SELECT count(*) FROM edits")[0][0] == 2
