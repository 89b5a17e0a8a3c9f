"""Workers: each takes what no other has, and one that stops, fails or dies holds up nobody."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from simulated_model import SimulatedModel, encoded

from clara_mlx.errors import NoModel, OtherModel, StoreError
from clara_mlx.memory import Memory, heartbeat, worker
from clara_mlx.memory.working import Working
from clara_mlx.store import workers

TEXTS = [f"text number {number} " * 20 for number in range(12)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.db"


def remember(path: Path, texts: list[str] = TEXTS) -> None:
    with Memory.open(path) as memory:
        for text in texts:
            memory.remember(text)


def in_thread(memory: Working, **options: Any) -> threading.Thread:
    thread = threading.Thread(target=memory.work, kwargs=options, daemon=True)
    thread.start()
    return thread


def test_once_ends_when_nothing_waits(path: Path, tmp_path: Path) -> None:
    remember(path)
    model = SimulatedModel(tmp_path / "log")
    with Memory.open(path, model, compress=False) as memory:
        worked = memory.work(once=True)
        assert (worked.contents, worked.waiting, worked.trouble) == (len(TEXTS), 0, None)
        status = memory.status()
        assert worked.chunks == status.compressed == status.chunks
        assert worked.tokens > worked.chunks
        assert memory.work_left().workers == []  # it has left
        assert set(encoded(tmp_path / "log").values()) == {1}


def test_a_worker_shows_itself_and_how_fast_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    remember(path)
    with Memory.open(path, SimulatedModel(seconds=0.02), compress=False) as memory:
        thread = in_thread(memory, once=True)
        while not (left := memory.work_left()).seconds:
            assert thread.is_alive()
            time.sleep(0.01)
        (one,) = left.workers
        assert (one.compressor, one.fingerprint, one.is_silent) == ("simulated", "a model", False)
        assert 0 < one.chunks_per_minute <= 60 / 0.02
        assert one.tokens_per_minute > one.chunks_per_minute
        assert left.seconds == pytest.approx(60 * left.chunks / one.chunks_per_minute)
        thread.join()
        with Memory.open(path) as other:
            assert other.work_left().workers == [] and other.work_left().chunks == 0


@pytest.mark.alone
def test_a_lease_is_kept_while_a_batch_takes_longer(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.02)
    remember(path, TEXTS[:5])
    log = tmp_path / "log"
    with (
        Memory.open(path, SimulatedModel(log, 0.1), compress=False) as one,
        Memory.open(path, SimulatedModel(log, 0.1), compress=False) as two,
    ):
        threads = [in_thread(memory, once=True) for memory in (one, two)]
        for thread in threads:
            thread.join()
        assert one.status().compressed == one.status().chunks
    assert set(encoded(log).values()) == {1}


def test_a_stopped_worker_finishes_its_batch_and_gives_the_rest_back(
    path: Path, tmp_path: Path
) -> None:
    remember(path, [f"{text} {number}" for number in range(4) for text in TEXTS])
    log = tmp_path / "log"
    first = Memory.open(path, SimulatedModel(log, 0.01))
    while not encoded(log):
        time.sleep(0.005)
    first.close()  # as an interrupt does
    with Memory.open(path, SimulatedModel(log), compress=False) as second:
        done = second.status()
        assert 0 < done.compressed < done.chunks and done.pending
        begun = time.monotonic()
        second.work(once=True)
        assert time.monotonic() - begun < 5  # it did not wait for the lease to expire
        assert second.status().compressed == done.chunks
    assert set(encoded(log).values()) == {1}


def test_a_bad_text_is_given_up_and_work_ends(path: Path) -> None:
    remember(path, [*TEXTS[:3], "poison"])
    with Memory.open(path, SimulatedModel(poison="poison"), compress=False) as memory:
        worked = memory.work(once=True)
        status = memory.status()
        assert (status.failed, status.pending, worked.waiting) == (1, 0, 1)
        assert status.last_error == "it was poisoned"


def test_a_failure_that_may_pass_does_not_end_a_worker(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remember(path)
    monkeypatch.setattr(worker, "PAUSE_SECONDS", 0.01)
    with Memory.open(path, SimulatedModel(), compress=False) as memory:
        assert memory._compressing is not None and memory._compressing.background is not None
        work = memory._compressing.work("a test")
        failures = iter([StoreError("the database restarts", transient=True)] * 3)
        put = work.put

        def fails(*given: Any) -> None:
            for failure in failures:
                raise failure
            put(*given)

        monkeypatch.setattr(work, "put", fails)
        worked = memory.work(once=True)
        assert worked.waiting == 0 and memory.status().compressed == memory.status().chunks
    said = [record.message for record in caplog.records if "restarts" in record.message]
    assert len(said) == 1  # not again for each try


def test_another_model_is_refused(path: Path) -> None:
    remember(path)
    with Memory.open(path, SimulatedModel(), compress=False) as memory:
        memory.work(once=True)
        with pytest.raises(NoModel):
            Memory.open(path).work(once=True)
    other = SimulatedModel(fingerprint="another model")
    with (
        Memory.open(path, other, compress=False) as memory,
        pytest.raises(OtherModel, match="clara-mlx recompress"),
    ):
        memory.work(once=True)


def test_a_worker_whose_memory_moves_to_another_model_ends_with_that_error(path: Path) -> None:
    remember(path)
    with Memory.open(path, SimulatedModel(seconds=0.01), compress=False) as memory:
        raised: list[Exception] = []

        def work() -> None:
            try:
                memory.work()
            except OtherModel as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while not memory.status().compressed:
            time.sleep(0.005)
        with Memory.open(path, SimulatedModel(fingerprint="new"), compress=False) as new:
            new.recompress()
            remember(path, ["one more"])
            thread.join(10)
            assert not thread.is_alive() and len(raised) == 1
            new.flush(10)
            assert new.status().compressed == new.status().chunks


def test_a_memory_that_is_compressed_in_the_background_does_not_work_twice(path: Path) -> None:
    with (
        Memory.open(path, SimulatedModel()) as memory,
        pytest.raises(StoreError, match="compress=False"),
    ):
        memory.work(once=True)


def test_names_say_on_which_machine_a_worker_was() -> None:
    name = workers.new_worker_name()
    assert name != workers.new_worker_name() and not workers.has_died(name)
    machine, _, token = name.split(" ")
    assert workers.has_died(f"{machine} {2**22 + 1} {token}")  # above the largest process id
    assert not workers.has_died(f"elsewhere {2**22 + 1} {token}")
    assert not workers.has_died("another process")


@pytest.mark.alone
def test_it_leaves_time_to_a_reasoner_that_answers(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CHUNKS", 1)
    remember(path)
    log = tmp_path / "log"
    with Memory.open(path, SimulatedModel(log, 0.05), compress=False) as memory:
        wanted = threading.Event()
        wanted.set()
        assert memory.model_thread
        memory.model_thread.is_machine_wanted = wanted.is_set
        thread = in_thread(memory, once=True)
        time.sleep(1)
        # A quarter of the time: 5 of the 20 chunks that it could have done; fewer if it is busy.
        assert len(encoded(log)) <= 6 and thread.is_alive()
        wanted.clear()
        thread.join(30)
        assert memory.status().compressed == memory.status().chunks > 6
