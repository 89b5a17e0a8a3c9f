"""Latents in PostgreSQL: found as in a file, with and without an index, while others write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clara_mlx.store.latent_search import open_latents
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.originals import Originals
from clara_mlx.store.postgres import latents, near_sketches, sketches
from clara_mlx.store.postgres.latent_index import PostgresLatentIndex
from clara_mlx.store.postgres.latents import PostgresLatentTable
from clara_mlx.store.postgres.near_sketches import Filter, ServerScan, Sketches
from clara_mlx.store.postgres.store import PostgresStore
from clara_mlx.store.store import Store
from tests.support.sizes import sized

SHAPE = (4, 64)
COUNT = sized(200, 3_000)
SOURCES = 10

Array = np.ndarray[Any, Any]


@pytest.fixture
def team(postgres_url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    yield store
    store.close()


@pytest.fixture
def index_from_100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SCANNED", 100)


def clustered(count: int, seed: int = 0) -> Array:
    """Latents (count, *SHAPE) in clusters of ten around a common mean."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count // 10 + 1, *SHAPE))
    noise = rng.normal(size=(count, *SHAPE))
    x = 2 + np.repeat(centres, 10, axis=0)[:count] + 0.5 * noise
    return x.astype(np.float32)


def open_table(store: Originals) -> LatentTable:
    return open_latents(store, "a model", SHAPE, "int8")[0]


def open_team(store: PostgresStore) -> tuple[PostgresLatentTable, PostgresLatentIndex]:
    table = PostgresLatentTable.open(store, "a model", *SHAPE, "int8")
    return table, PostgresLatentIndex(table)


def fill(store: Originals, table: LatentTable, x: Array, first: int = 0) -> list[int]:
    """Remember a text for each latent, and put the latents; returns the chunks' ids."""
    ids = []
    for number in range(first, first + len(x)):
        handle = store.remember(
            f"text {number}".encode(),
            f"text {number}",
            [(0, 5, 2)],
            source=f"s{number % SOURCES}",
        )
        ids.append(store.chunks(store.content_id(handle))[0].id)
    for start in range(0, len(x), 50):
        table.put(ids[start : start + 50], x[start : start + 50])
    return ids


def recall(found: list[tuple[int, float]], exact: list[tuple[int, float]]) -> float:
    return len({id for id, _ in found} & {id for id, _ in exact}) / len(exact)


def test_both_find_the_same(team: PostgresStore, tmp_path: Path) -> None:
    file = Store(tmp_path / "memory.db")
    x = clustered(120)
    indexes = []
    for store in (file, team):
        table, index = open_latents(store, "a model", SHAPE, "int8")
        assert table.is_empty()
        fill(store, table, x)
        assert not table.is_empty()
        indexes.append(index)
    for query in x[:5]:
        options: list[dict[str, Any]] = [
            {},
            {"exact": True},
            {"where": {"source": ["s1", "s2"]}},
            {"sure": 3},
        ]
        for given in options:
            expected, found = (dict(index.search(query, 10, **given)) for index in indexes)
            assert [*found] == [*expected]
            assert found == pytest.approx(expected)
        ids = [1, 5, 7]
        expected_cosines, cosines = (index.centred_cosines(query, ids) for index in indexes)
        assert cosines == {id: pytest.approx(one) for id, one in expected_cosines.items()}


@pytest.mark.usefixtures("index_from_100")
def test_an_index_is_made_once_there_are_many_and_finds_what_a_scan_finds(
    team: PostgresStore,
) -> None:
    table, index = open_team(team)
    x = clustered(COUNT)
    fill(team, table, x)
    assert table.has_index()
    filters: list[dict[str, Any] | None] = [None, {"source": "s3"}, {"source": ["s1", "s4", "s8"]}]
    for where in filters:
        shares = [
            recall(
                index.search(query, 10, where=where),
                index.search(query, 10, where=where, exact=True),
            )
            for query in x[:: COUNT // 20]
        ]
        assert np.mean(shares) > 0.95
    assert near_sketches.missed(team, table.id, 20) == ([], 20)
    assert team.damage(quick=False) == []


@pytest.mark.usefixtures("index_from_100")
def test_the_index_is_asked_only_where_a_filter_lets_enough_through(
    team: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, index = open_team(team)
    x = clustered(150)
    ids = fill(team, table, x)
    asked: list[float] = []
    follow = Sketches.follow

    def spy(self: Sketches, sketch: Any, number: int, allowed: Filter) -> Any:
        asked.append(allowed.share)
        return follow(self, sketch, number, allowed)

    monkeypatch.setattr(Sketches, "follow", spy)
    assert len(index.search(x[0], 5, where={"source": "s3"})) == 5
    assert {id for id, _ in index.search(x[0], 5, ids[:9])} <= {*ids[:9]}
    assert asked == []
    everything = {"source": [f"s{number}" for number in range(SOURCES)]}
    assert index.search(x[0], 5, where=everything) == index.search(x[0], 5)
    assert len(asked) >= 2


@pytest.mark.usefixtures("index_from_100")
def test_an_index_with_wrong_neighbours_is_noticed(
    team: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = open_team(team)
    fill(team, table, clustered(120))
    scan = Sketches.scan
    monkeypatch.setattr(
        Sketches,
        "follow",
        lambda self, sketch, number, allowed: scan(self, sketch, 2 * number, allowed)[number:],
    )
    chunks, checked = near_sketches.missed(team, table.id, 7)
    assert len(chunks) == checked == 7
    (problem,) = team.damage(quick=False)
    assert f"REINDEX INDEX clara_mlx.sketches_{table.id}_near" in problem


def test_others_write_while_the_sketches_are_remade(
    team: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = open_team(team)
    add_new = sketches.add_new
    others = [PostgresStore(postgres_url)]

    def write_meanwhile(connection: Any, space_id: int, rows: Any) -> None:
        """Another process writes after the first new sketches were made, and before the last."""
        add_new(connection, space_id, rows)
        while others:
            other = others.pop()
            writer = threading.Thread(
                target=fill, args=(other, open_table(other), clustered(30, seed=1), 1_000)
            )
            writer.start()
            writer.join()
            other.close()

    monkeypatch.setattr(sketches, "add_new", write_meanwhile)
    fill(team, table, clustered(70))
    assert not others
    epoch, sketcher = table.sketcher()
    assert epoch > 0
    (counts,) = team.read(
        f"SELECT (SELECT count(*) FROM sketches_{table.id}), (SELECT count(*) FROM latents)"
    )
    assert tuple(counts) == (100, 100)
    # Every sketch is centred on the mean of today.
    ids = [row[0] for row in team.read("SELECT chunk_id FROM latents")]
    kept = b"".join(sketches.read(team, table.id, [id])[id] for id in ids)
    made = sketcher.sketch(table.codec.search_vectors([table.blobs([id])[id] for id in ids]))
    differing = np.bitwise_count(np.frombuffer(kept, np.uint8).reshape(made.shape) ^ made)
    assert differing.sum(axis=1).max() < table.sketch_bits / 20  # but for how blobs are rounded


def test_a_search_goes_on_with_sketches_that_were_remade_meanwhile(team: PostgresStore) -> None:
    table, index = open_team(team)
    x = clustered(40)
    fill(team, table, x)
    before = index.search(x[0], 5)
    epoch, sketcher = table.sketcher()
    with team.write() as connection:
        connection.execute("UPDATE spaces SET epoch = epoch + 1")
    stale = Sketches(team, table.id, table.sketch_bits, epoch)
    with pytest.raises(near_sketches.OtherEpoch):
        stale.scan(sketcher.sketch_query(x[0].reshape(-1)).sketch, 5, Filter())
    assert index.search(x[0], 5) == before


def test_more_candidates_are_read_until_the_radius_is_passed() -> None:
    numbers: list[int] = []

    def read(number: int) -> list[tuple[int, int]]:
        numbers.append(number)
        return [(id, id) for id in range(min(number, 5_000))]

    scan = ServerScan(read, 8192)
    rows = scan.near(3)
    assert scan.ids[rows].tolist() == [0, 1, 2]
    assert len(scan.within(100)) == 101
    assert numbers == [near_sketches._FIRST]
    assert len(scan.within(700)) == 701
    assert len(scan.within(8192)) == 5_000
    assert len(numbers) == 3
