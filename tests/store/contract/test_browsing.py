"""Lists and groups on both databases: the same order, the same names, whatever is unknown."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from memory_worker import remember
from postgres import new_database

from clara_mlx.store import browsing
from clara_mlx.store.opening import open_store
from clara_mlx.store.originals import Originals

# Source, session and project of memories, the oldest first; among them what sorts oddly.
MEMORIES = [
    ("pytest", "s1", "/work/a"),
    (None, None, None),
    ("Make", "s1", "/work/B"),
    ("é", "\0", "/work/a"),
    ("", "s2", ""),
    ("pytest", None, "/work/\0"),
]


def fill(store: Originals) -> list[str]:
    handles = []
    for number, (source, session, project) in enumerate(MEMORIES):
        about = {} if project is None else {"project": project}
        text = f"text {number}\n" * (1 + number * 7 % 5)
        given = {"source": source, "session": session, "metadata": about}
        handles.append(
            remember(store, text, created_at=1e9 + number, handle=f"m-{number}", **given)
        )
    return handles


def test_every_order(store: Originals) -> None:
    handles = fill(store)

    def order(name: browsing.Order) -> list[int]:
        rows = browsing.page(store, {"handle": handles}, 10, 0, name)
        return [int(row.handle[2:]) for row in rows]

    assert order("newest") == [5, 4, 3, 2, 1, 0]
    assert order("oldest") == [0, 1, 2, 3, 4, 5]
    assert order("largest") == [2, 4, 1, 3, 5, 0]
    # What is not known comes first, then by code points.
    assert order("source") == [1, 4, 2, 5, 0, 3]
    assert order("session") == [5, 1, 3, 2, 0, 4]
    first, *_ = browsing.page(store, {"source": "é"}, 10)
    assert (first.session, first.metadata, first.pending) == ("\0", {"project": "/work/a"}, True)
    assert first.begins.startswith("text 3\n") and not first.replaced


def test_groups_projects_and_counts(store: Originals) -> None:
    fill(store)
    assert browsing.projects(store) == ["", "/work/\0", "/work/B", "/work/a"]
    groups = browsing.groups(store, "project", 10)
    assert [(g.name, g.memories) for g in groups if g.name] == [
        *(("/work/\0", 1), ("/work/a", 2), ("/work/B", 1))
    ]
    assert [(g.name, g.memories) for g in browsing.groups(store, "session", 10)] == [
        *((None, 2), ("s2", 1), ("\0", 1), ("s1", 2))
    ]
    assert browsing.count(store, {"project": "/work/a"}) == 2
    assert browsing.count_and_bytes(store, {"session": "s1"}) == (2, 7 + 7 * 5)
    assert set(browsing.by_handle(store, ["m-3", "m-none"])) == {"m-3"}
    assert browsing.chunk_sizes(store, "m-1") == (1, None)
    assert browsing.same_content(store, "m-1", 5) == []


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"])
def test_a_day_is_one_of_the_place_where_it_was_written(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the server is, and on the days on which the clock is changed."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        now = int(time.time())
        times = [now - hours * 3_600 for hours in range(0, 24 * 700, 5)]
        with new_database() as url:
            store = open_store(url)
            day = store.dialect.local_date("at")
            rows = store.read(
                f"SELECT at, {day} AS day FROM unnest(?::float8[]) AS given (at)",
                ([float(one) for one in times],),
            )
            store.close()
        assert all(row["day"] == f"{datetime.fromtimestamp(row['at']):%Y-%m-%d}" for row in rows)
        assert len(rows) == len(times)
    finally:
        monkeypatch.undo()
        time.tzset()
