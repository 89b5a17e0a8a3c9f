"""Care on both databases: verify finds each kind of damage, repair mends what can be made again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from memory_worker import remember

from clara_mlx.errors import StoreError
from clara_mlx.store import care
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.originals import Originals

TEXTS = [f"step {number}: the gadget of module_{number} failed\n" * 40 for number in range(6)]


def filled(store: Originals) -> LatentTable:
    """Texts with latents, as a model would make them."""
    for text in TEXTS:
        remember(store, text, source="log", session="one")
    table = LatentTable.open(store, "a model", 2, 64, "int8")
    for content in store.backlog.pending(100):
        chunks = [chunk.id for chunk in store.chunks(content)]
        rng = np.random.default_rng(content)
        table.put(chunks, rng.standard_normal((len(chunks), 2, 64), dtype=np.float32), [content])
    return table


def damage(store: Originals, sql: str) -> None:
    with store.write() as connection:
        connection.execute(sql)


def test_all_is_well_and_each_row_was_looked_at(store: Originals) -> None:
    table = filled(store)
    found = care.verify(store)
    assert found.problems == [] and found.can_be_exported is None
    chunks = table.count()
    assert found.checked == {
        **{"originals": len(TEXTS), "chunks": chunks, "latents": chunks, "sketches": chunks},
        "shortened texts": 0,
    }


@pytest.mark.parametrize(
    ("sql", "said", "chunks"),
    [
        ("UPDATE contents SET sha256 = (SELECT sha256 FROM contents c2 WHERE c2.id = 2), "
         "kind = 'bytes' WHERE id = 1", "content 1 is damaged (its SHA-256 differs)", 0),
        ("UPDATE latents SET crc = crc + 1 WHERE id = 1", "are damaged", 1),
        ("DELETE FROM sketches_1 WHERE CHUNK = 1", "chunk 1 has no sketch", 1),
        ("DELETE FROM latents WHERE chunk_id = 1", "has a sketch without latents", 1),
        ('UPDATE chunks SET "end" = "end" - 1 WHERE id = 1', "leave a gap or overlap", 0),
        ("DELETE FROM chunk_text WHERE ROW = 1", "in the full-text index", 0),
    ],
)  # fmt: skip
def test_damage_is_found_and_what_can_be_is_made_again(
    store: Originals, sql: str, said: str, chunks: int
) -> None:
    filled(store)
    at_server = isinstance(store.path, str)
    sql = sql.replace("CHUNK", "chunk_id" if at_server else "rowid")
    damage(store, sql.replace("ROW", "id" if at_server else "rowid"))
    found = care.verify(store)
    assert any(said in problem for problem in found.problems), found.problems
    assert len(set(found.damaged_chunks)) == chunks
    if chunks:
        assert care.repair(store, found) == chunks
        assert care.verify(store).problems == []
        assert store.backlog.count() == 1  # it is compressed again


def test_one_check_that_fails_harms_no_other(store: Originals) -> None:
    filled(store)
    damage(store, "ALTER TABLE shortened RENAME TO gone")
    found = care.verify(store)
    assert len(found.problems) == 1 and "shortened texts: " in found.problems[0]
    assert found.checked["latents"] == found.checked["chunks"]


def test_vacuum_loses_nothing(opened: Callable[[], Originals]) -> None:
    store = opened()
    filled(store)
    store.forget({"source": "log", "after": 0, "handle": [m.handle for m in store.memories()][:3]})
    before, after = care.vacuum(store)
    assert after <= before
    assert care.verify(opened()).problems == []
    assert len(list(store.memories())) == len(TEXTS) - 3


def test_a_database_is_not_kept_within_a_size_by_one_of_those_who_share_it(name: str) -> None:
    from clara_mlx.memory import Memory

    if "://" not in name:
        with Memory.open(name, most_bytes=400_000) as memory:
            for _ in range(3):
                memory.remember("x" * 1_000)
        return
    with pytest.raises(StoreError, match="forget --before"):
        Memory.open(name, most_bytes=1_000_000)
