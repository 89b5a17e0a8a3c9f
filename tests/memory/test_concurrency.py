"""Several processes with one file: nothing is lost, nobody is locked out, one compresses.

`bench/stress.py concurrency` does it for a minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_worker import Worker, make_version_1, remember, run_together

from clara_mlx.errors import OtherModel
from clara_mlx.memory import Memory
from clara_mlx.store.latent_index import LatentIndex
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.store import Store


def test_writers_and_readers_in_processes(folder: Callable[..., Path], tmp_path: Path) -> None:
    figures = run_together(
        tmp_path / "m.db", 3, models=[folder("c16", "e2e")] * 2 + [""] * 2, readers=4
    )
    assert figures["errors"] == []
    assert figures["lost"] == 0
    assert figures["overlapping batches"] == 0  # how many there are depends on the machine
    assert figures["problems"] == []
    assert figures["writes"] > 20 and figures["reads"] > 20


def test_a_reader_is_not_held_up_by_a_transaction(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    writer, reader = Store(path), Store(path)
    handle = remember(writer, "what is here already")
    with writer.write() as connection:
        connection.execute("DELETE FROM memories")
        start = time.monotonic()
        assert reader.original(handle)[0] == b"what is here already"
        assert time.monotonic() - start < 0.5
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
    writer.close()
    reader.close()


def test_many_processes_make_one_new_file(tmp_path: Path) -> None:
    workers = [Worker("read", tmp_path / "m.db", seed, 0.1) for seed in range(4)]
    for worker in workers:
        assert [words[0] for words in worker.finish()] == ["reads"]


def test_many_threads_open_one_new_or_old_file(tmp_path: Path) -> None:
    """A store of its own for each: connections don't know of each other."""

    def use(path: Path, barrier: threading.Barrier) -> int:
        barrier.wait()
        store = Store(path)
        remember(store, "one and the same")
        number = store.backlog.count()
        store.close()
        return number

    for number in range(10):
        for old in (False, True):
            path = tmp_path / f"{number}{old}.db"
            if old:
                make_version_1(path, 5)
            barrier = threading.Barrier(6)
            with ThreadPoolExecutor(6) as threads:
                backlogs = list(threads.map(lambda _: use(path, barrier), range(6)))  # noqa: B023
            assert set(backlogs) == {6 if old else 1}
            store = Store(path)
            assert store.figures()["memories"] == (11 if old else 6)
            store.close()


def test_forgetting_while_it_is_compressed(clara: Callable[..., Any], tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db", clara("c16", "e2e")) as memory:
        handles = [memory.remember(f"number {n} of many " * 9) for n in range(100)]
        for handle in handles[::2]:
            memory.forget(handle)
        memory.flush(60)
        status = memory.status()
        assert (status.memories, status.failed, status.pending) == (50, 0, 0)
        assert status.compressed == status.chunks
        assert memory.verify().problems == []


def test_an_id_is_never_another_text_to_a_process_that_cached_it(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "m.db"), Store(tmp_path / "m.db")
    handle = remember(one, "the old text")
    (content,) = one.backlog.pending(1)
    assert one.text(content) == "the old text"
    two.forget({"handle": handle})
    remember(two, "the new text")
    assert one.text(one.backlog.pending(1)[0]) == "the new text"
    one.close()
    two.close()


def test_two_processes_never_mix_sketches_of_two_means(tmp_path: Path) -> None:
    """One moves the mean while the other still has the old one; all sketches are of the new one."""
    stores = Store(tmp_path / "m.db"), Store(tmp_path / "m.db")
    a, b = (LatentTable.open(store, "a model", 4, 64, "fp16") for store in stores)
    rng = np.random.default_rng(0)
    common = 3 * rng.normal(size=(4, 64))
    for number in range(66):
        remember(stores[0], f"text {number}")
        latents = (common + rng.normal(size=(1, 4, 64))).astype(np.float32)
        (a if number < 65 else b).put([number + 1], latents, [number + 1])
    query = (common + rng.normal(size=(4, 64))).astype(np.float32)
    kept = stores[0].read("SELECT rowid, bits FROM sketches_1 ORDER BY rowid")
    made = a.sketcher()[1].sketch(a.latents(list(range(1, 67))).reshape(66, -1))
    differing = [
        int(np.bitwise_count(np.frombuffer(row["bits"], np.uint8) ^ sketch).sum())
        for row, sketch in zip(kept, made, strict=True)
    ]
    assert max(differing) <= 2  # fp16 rounds
    assert LatentIndex(a).search(query, 5) == LatentIndex(b).search(query, 5)
    for store in stores:
        store.close()


def test_a_file_that_moves_to_another_model_while_it_is_open(
    clara: Callable[..., Any], tmp_path: Path
) -> None:
    """The first model notices, stops compressing, and says so; it finds by words all the same."""
    path = tmp_path / "m.db"
    first = Memory.open(path, clara("c16", "e2e"))
    for number in range(20):
        first.remember(f"text {number}")
    first.flush(60)
    second = Memory.open(path, clara("c16", "instruct"))
    second.recompress()
    assert first.recall("text 7", 1)[0].found_by == ("text",)
    for use in (lambda: first.recall("7", mode="latent"), lambda: first.ask("text 7?")):
        with pytest.raises(OtherModel, match="recompress"):
            use()
    first.remember("one more")
    second.flush(60)
    assert second.status().failed == 0
    assert second.status().compressed == second.status().chunks == 21
    assert second.verify().problems == []
    found = second.recall("text 7", 21, mode="latent")
    expected = clara("c16", "instruct").encode([hit.text for hit in found])
    stored = LatentTable.open(
        second.file, second.clara.fingerprint, *expected.shape[1:], "int8"
    ).latents([hit.chunk_id for hit in found])
    np.testing.assert_allclose(stored, np.array(expected), atol=0.1)
    first.close()
    second.close()
