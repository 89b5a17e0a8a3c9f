"""The ledger: rounds and their sums, kept in the memory's file and forgotten with their session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

import pytest
from memory_worker import remember

from clara_mlx.errors import StoreError
from clara_mlx.store import ledger, sums
from clara_mlx.store.ledger import Round
from clara_mlx.store.originals import Originals

NOON = datetime(2026, 11, 30, 12).timestamp()
DAY = 86_400.0


def a_round(session: str = "s1", at: float = NOON, **given: object) -> Round:
    values = {"tokens_in": 1000, "tokens_sent": 400, "cached_expected": 300} | given
    return Round(at=at, session=session, **values)  # type: ignore[arg-type]


def test_a_round_is_read_as_it_was_written_also_by_another_process(
    opened: Callable[[], Originals],
) -> None:
    store = opened()
    one = a_round(
        project="/p",
        agent="claude-cli",
        api="messages",
        model="q",
        served_by="fallback",
        number=1,
        seconds=2.5,
        cached_reported=250,
        completion_tokens=7,
        cache="partial",
        why="a compaction changed the prompt",
        reason="compacted (auto)",
        before=1000,
        after=400,
        lost=-40,
        memory_calls=2,
        compacted=("m-1", "m-2"),
        asked=(("m-1", "expand"),),
    )
    ledger.write(store, [one])
    (read,) = sums.rounds(opened())
    assert read == one
    assert (read.cached, read.prefilled, read.is_estimated) == (250, 150, False)


def test_sums_by_every_key_are_those_of_the_rounds(store: Originals) -> None:
    rounds = [
        a_round(),
        a_round(number=1, cached_reported=100, memory_calls=1),
        a_round("s2", NOON + DAY, agent="codex", project="/p", compacted=("m-1",)),
        a_round("s2", NOON + DAY, tokens_in=0, tokens_sent=0, cached_expected=0, error="502"),
    ]
    ledger.write(store, rounds[:3])
    ledger.write(store, rounds[3:])
    (all_,) = sums.sums(store)
    assert (all_.requests, all_.rounds, all_.failures) == (3, 4, 1)
    assert (all_.tokens_in, all_.tokens_sent, all_.saved) == (3000, 1200, 1800)
    assert (all_.cached, all_.prefilled, all_.estimated) == (700, 500, 2)
    assert (all_.cached_expected, all_.cached_reported) == (900, 100)
    assert (all_.compactions, all_.compacted, all_.memory_calls) == (1, 1, 1)
    assert (all_.first_at, all_.last_at) == (NOON, NOON + DAY)
    for key, names in {
        "day": ["2026-12-01", "2026-11-30"],
        "session": ["s2", "s1"],
        "agent": ["codex", ""],
        "project": ["/p", ""],
        "model": [""],
    }.items():
        rows = sums.sums(store, [key], sort=key)
        assert sorted(getattr(row, key) for row in rows) == sorted(names)
        assert sum(row.rounds for row in rows) == 4
        assert sum(row.prefilled for row in rows) == 500
    by_both = sums.sums(store, ["day", "agent"], sort="rounds")
    assert next((row.day, row.agent, row.session) for row in by_both) == ("2026-11-30", "", None)


def test_sums_can_be_filtered_sorted_and_paged(store: Originals) -> None:
    ledger.write(
        store,
        [a_round(f"s{i}", NOON + i * DAY, tokens_in=100 - i, agent=f"a{i}") for i in range(5)],
    )
    assert [one.session for one in sums.sums(store, ["session"], most=2, skip=1)] == ["s3", "s2"]
    largest = sums.sums(store, ["session"], sort="tokens_in")
    assert [one.session for one in largest] == ["s0", "s1", "s2", "s3", "s4"]
    assert [one.rounds for one in sums.sums(store, where={"agent": ["a1", "a2"]})] == [2]
    since = {"after": NOON + 3 * DAY, "before": NOON + 4 * DAY}
    assert [one.session for one in sums.sums(store, ["session"], since)] == ["s3"]
    assert sums.sums(store, where={"session": "nobody"}) == []
    for wrong in ("sha256", "at; DROP TABLE days"):
        with pytest.raises(StoreError):
            sums.sums(store, [wrong])
        with pytest.raises(StoreError):
            sums.sums(store, sort=wrong)
        with pytest.raises(StoreError):
            sums.sums(store, where={wrong: 1})


def test_rounds_are_paged_and_found_by_what_they_did_with_a_memory(store: Originals) -> None:
    handle = remember(store, "an output", session="s1")
    ledger.write(store, [a_round(at=NOON + i) for i in range(5)])
    ledger.write(store, [a_round(compacted=(handle,)), a_round(asked=((handle, "expand"),))])
    page = sums.rounds(store, most=3)
    assert [one.id for one in page] == [7, 6, 5]
    assert [one.id for one in sums.rounds(store, most=3, before_id=5)] == [4, 3, 2]
    assert [one.id for one in sums.rounds(store, {"handle": handle})] == [7, 6]
    assert [(use.round, use.how) for use in sums.uses(store, handle)] == [
        (7, "expand"),
        (6, "compacted"),
    ]
    assert [one.rounds for one in sums.sums(store, where={"handle": handle})] == [2]


def test_it_grows_no_further_than_its_bounds_and_the_sums_stay(
    store: Originals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MOST_ROUNDS", 20)
    monkeypatch.setattr(ledger, "MOST_SUMS", 10)
    monkeypatch.setattr(ledger, "_SLACK", 2)
    monkeypatch.setattr(ledger, "_LOOK_EVERY", 1)
    for number in range(50):
        ledger.write(store, [a_round(f"s{number}", NOON + number * DAY, compacted=("m-1",))])
    assert store.read("SELECT count(*) FROM rounds")[0][0] <= 22
    assert store.read("SELECT count(*) FROM uses")[0][0] <= 22
    assert store.read("SELECT count(*) FROM days WHERE session <> ''")[0][0] <= 12
    (all_,) = sums.sums(store)
    assert (all_.rounds, all_.tokens_in, all_.compactions) == (50, 50_000, 50)
    # Before the oldest round that is left, whole days are summed.
    (half,) = sums.sums(store, where={"after": NOON + 9.25 * DAY, "before": NOON + 19.5 * DAY})
    assert half.rounds == 11
    (newest,) = sums.sums(store, where={"after": NOON + 44.5 * DAY})
    assert newest.rounds == 5


def test_names_that_others_think_of_are_bounded_too(
    store: Originals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "MOST_SUMS", 10)
    monkeypatch.setattr(ledger, "_SLACK", 2)
    monkeypatch.setattr(ledger, "_LOOK_EVERY", 1)
    for number in range(60):
        ledger.write(store, [a_round("", NOON + number % 3 * DAY, model=f"model {number}")])
    assert store.read("SELECT count(*) FROM days")[0][0] <= 15
    (all_,) = sums.sums(store)
    assert (all_.rounds, all_.tokens_in) == (60, 60_000)


def test_a_forgotten_session_leaves_its_figures_without_its_name(store: Originals) -> None:
    handle = remember(store, "one", session="s1")
    other = remember(store, "two", session="s1")
    ledger.write(store, [a_round(compacted=(handle,)), a_round("s2"), a_round("s3")])
    store.forget({"handle": handle})
    assert sums.uses(store, handle) == []
    assert {one.session for one in sums.rounds(store)} == {"s1", "s2", "s3"}
    store.forget({"handle": other})  # the last one
    store.forget({"session": "s2"})  # which never had one
    assert {one.session for one in sums.rounds(store)} == {"", "s3"}
    named = sums.sums(store, ["session"], sort="rounds")
    assert [(one.session, one.rounds) for one in named] == [("", 2), ("s3", 1)]
    (all_,) = sums.sums(store)
    assert (all_.rounds, all_.tokens_in) == (3, 3000)


@pytest.mark.alone
def test_a_batch_is_cheap_and_nothing_of_a_failed_one_is_kept(store: Originals) -> None:
    with pytest.raises(StoreError):
        ledger.write(store, [a_round(), a_round(tokens_in=2**70)])
    assert sums.rounds(store) == []
    begun = time.perf_counter()
    ledger.write(store, [a_round(f"s{i % 7}", NOON + i) for i in range(300)])
    assert time.perf_counter() - begun < 3  # 0.04 s on an idle core


def test_nothing_is_lost_among_gateways_that_count_and_forget_at_once(
    opened: Callable[[], Originals],
) -> None:
    gateways = [opened() for _ in range(4)]
    errors: list[Exception] = []

    def count(number: int) -> None:
        try:
            for step in range(12):
                rounds = [a_round(f"s{(number + step + i) % 3}", tokens_in=1) for i in range(3)]
                ledger.write(gateways[number], rounds)
                if step % 4 == number:
                    gateways[number].forget({"session": f"s{number % 3}"})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    (total,) = sums.sums(gateways[0])
    assert (total.requests, total.tokens_in) == (144, 144)
    assert sum(one.tokens_in for one in sums.sums(gateways[0], ["session"])) == 144
    assert len(sums.rounds(gateways[0], most=1_000)) == 144
