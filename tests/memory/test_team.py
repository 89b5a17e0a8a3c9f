"""A team shares one memory in PostgreSQL: what is acknowledged stays, whoever is killed.

`bench/team.py` does the same for longer.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from simulated_model import SimulatedModel, encoded
from sizes import sized
from team_process import Process
from team_runs import compare_workers, kill, together

from clara_mlx.compressors import registry
from clara_mlx.errors import OtherModel
from clara_mlx.memory import Memory, heartbeat, worker
from clara_mlx.store.workers import new_worker_name

TEXTS = [f"text number {number} " * 20 for number in range(24)]


def fill(url: str, texts: list[str] = TEXTS) -> None:
    with Memory.open(url) as memory:
        for text in texts:
            memory.remember(text)


@pytest.mark.alone
def test_nothing_is_lost_whoever_is_killed(postgres_url: str, tmp_path: Path) -> None:
    times = sized(2, 50)
    figures = kill(postgres_url, tmp_path, times, at_once=sized(1, 2))
    assert figures["killed"] == dict.fromkeys(("backend", "worker", "writer"), times)
    assert figures["acknowledged"] > 0
    assert (figures["lost"], figures["errors"], figures["problems"]) == (0, {}, [])
    assert (figures["pending"], figures["given up"]) == (0, 0)
    assert figures["compressed"] == figures["chunks"] >= figures["acknowledged"]


@pytest.mark.alone
def test_many_at_once(postgres_url: str, tmp_path: Path) -> None:
    seconds, writers, workers = sized((1, 1, 2), (60, 8, 3))
    figures = together(
        postgres_url, tmp_path, seconds, writers=writers, readers=writers, workers=workers
    )
    assert (figures["lost"], figures["errors"], figures["problems"]) == (0, {}, [])
    assert figures["failed for a while"] == {}
    assert figures["texts encoded more than once"] == 0
    assert figures["texts encoded"] == figures["compressed"] == figures["chunks"]
    assert figures["written"] and figures["reads"]


@pytest.mark.alone
@pytest.mark.skipif(sized(True, False), reason="measures time: CLARA_MLX_TEST_SIZE=full runs it")
def test_several_workers_do_more_than_one(postgres_url: str, tmp_path: Path) -> None:
    figures = compare_workers(postgres_url, tmp_path, 300, 0.1, (1, 3), repeats=1)
    assert figures["times as fast as one"][3] > 2.5


def test_each_worker_gets_other_contents(postgres_url: str) -> None:
    fill(postgres_url)
    with Memory.open(postgres_url) as one, Memory.open(postgres_url) as two:
        first = one._store.backlog.lease("first", 5, 60)
        second = two._store.backlog.lease("second", 30, 60)
        assert len(first) == 5 and not {*first} & {*second}
        # What a worker has it may have again; others get it when it is given back or expires.
        assert one._store.backlog.lease("first", 5, 60)[:5] == first
        one._store.backlog.give_back("first")
        assert two._store.backlog.lease("third", 1, 0.05) == first[:1]
        time.sleep(0.1)
        assert one._store.backlog.lease("fourth", 1, 60) == first[:1]


def test_a_worker_leaves_most_of_a_small_backlog_to_others(postgres_url: str) -> None:
    fill(postgres_url)
    with Memory.open(postgres_url) as memory:
        assert len(memory._store.backlog.lease("first", 64, 60)) == len(TEXTS) // 4
        assert len(memory._store.backlog.lease("second", 64, 60)) == 4


def test_a_dead_workers_lease_is_free_at_once_on_its_machine(postgres_url: str) -> None:
    fill(postgres_url)
    machine, _, token = new_worker_name().split(" ")
    with Memory.open(postgres_url) as memory:
        for dead in (f"{machine} {2**22 + number} {token}" for number in (1, 2)):
            assert memory._store.backlog.lease(dead, 20, 60)
        elsewhere = memory._store.backlog.lease(f"elsewhere 1 {token}", 4, 60)
        found = [
            content
            for number in range(9)
            for content in memory._store.backlog.lease(f"living {number}", 64, 60)
        ]
        assert sorted(found + elsewhere) == list(range(1, len(TEXTS) + 1))


def test_sigterm_ends_a_worker_after_its_batch(postgres_url: str, tmp_path: Path) -> None:
    fill(postgres_url)
    log = tmp_path / "log"
    process = Process("work", postgres_url, 0, log, 0.02).start()
    while not encoded(log):
        time.sleep(0.02)
    said = process.end()
    with Memory.open(postgres_url, SimulatedModel(), compress=False) as memory:
        status = memory.status()
        assert 0 < status.compressed == int(said[-1][2]) < status.chunks
        assert not memory.file.read("SELECT 1 FROM pending WHERE leased_by IS NOT NULL")
        assert memory.work_left().workers == []


def test_status_shows_all_workers(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    fill(postgres_url)
    opened = [
        Memory.open(postgres_url, SimulatedModel(seconds=0.02), compress=False) for _ in range(2)
    ]
    threads = [threading.Thread(target=each.work, kwargs={"once": True}) for each in opened]
    for thread in threads:
        thread.start()
    with Memory.open(postgres_url) as memory:
        left = memory.work_left()
        while len([one for one in left.workers if one.chunks]) < 2:
            left = memory.work_left()
            assert any(thread.is_alive() for thread in threads)
            time.sleep(0.01)
        assert left.seconds == pytest.approx(
            60 * left.chunks / sum(one.chunks_per_minute for one in left.workers)
        )
        for thread in threads:
            thread.join()
        assert memory.work_left().workers == []
    for each in opened:
        each.close()


def test_a_move_fills_the_new_models_place_while_the_old_one_stays(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.02)
    fill(postgres_url)
    old, new = SimulatedModel(fingerprint="old"), SimulatedModel(tmp_path / "log", 0.01, "new")
    with Memory.open(postgres_url, old, compress=False) as memory:
        memory.work(once=True)
        chunks = memory.status().chunks
        with Memory.open(postgres_url, new, compress=False) as early, pytest.raises(OtherModel):
            early.work(once=True)  # nobody has begun a move to it
        moving = Memory.open(postgres_url, new, compress=False)
        seen: list[tuple[int, int]] = []
        thread = threading.Thread(
            target=moving.recompress, args=(lambda done, total: seen.append((done, total)),)
        )
        thread.start()
        while not (second := memory.work_left().second) or second.left > len(TEXTS) - 5:
            time.sleep(0.01)
        assert (second.fingerprint, second.contents) == ("new", len(TEXTS))
        assert memory.status().compressed == chunks  # the old one is whole
        fill(postgres_url, ["one more"])
        with Memory.open(postgres_url, new, compress=False) as helper:
            helper.work(once=True)
        thread.join()
        moving.close()
        assert seen[-1][0] == seen[-1][1] >= len(TEXTS)
        with pytest.raises(OtherModel, match="recompress"):
            memory.work(once=True)
    with Memory.open(postgres_url, new, compress=False) as memory:
        status = memory.status()
        assert status.compressed == status.chunks > chunks
        assert (status.pending, status.failed, memory.work_left().second) == (0, 0, None)
        assert memory.file.read("SELECT count(*) FROM latents")[0][0] == status.chunks
        assert memory.verify().problems == []
    assert set(encoded(tmp_path / "log").values()) == {1}


def test_a_textual_compressor_has_workers_too(postgres_url: str) -> None:
    fill(postgres_url)
    compressor: Any = registry.open_compressor("head-tail")
    opened = [Memory.open(postgres_url, compressor, compress=False) for _ in range(2)]
    threads = [threading.Thread(target=each.work, kwargs={"once": True}) for each in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = opened[0].status()
    assert (status.pending, status.failed) == (0, 0)
    assert status.compressed == status.chunks
    for each in opened:
        each.close()


def test_what_was_cut_anew_meanwhile_is_not_taken_for_done(postgres_url: str) -> None:
    """A worker that slept through its lease stores its last batch after another cut the text."""
    fill(postgres_url, TEXTS[:1])
    with Memory.open(postgres_url, SimulatedModel(), compress=False) as memory:
        assert memory._compressing is not None
        slow = memory._compressing.work("a test")
        (content,) = slow.backlog.lease("slow", 1, 0.01)
        chunks = slow.missing(content)
        texts = [memory._store.text(content)[chunk.start : chunk.end] for chunk in chunks]
        slow.recut(content)  # as the other worker does
        slow.put(chunks, texts, slow.compress(texts), [content])
        assert slow.backlog.count() == 1
        memory.work(once=True)
        assert memory.status().compressed == memory.status().chunks
