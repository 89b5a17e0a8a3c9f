"""What is forgotten is gone: from every row, every statistic, and the files of tables and indexes.

The test looks at all of them, whatever tables there are, for words that were in what was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from clara_mlx.memory import Memory
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.ledger import Round
from clara_mlx.store.opening import open_store
from clara_mlx.store.originals import Originals

# Words that stand nowhere else; the texts are too short to be compressed, so they can be seen.
SECRET = "zyxwsecretvutsr"
NAMES: dict[str, Any] = {
    "handle": "handle-zyxwsecretvutsr",
    "source": "source zyxwsecretvutsr",
    "session": "session zyxwsecretvutsr",
}


def run(url: object, statement: str) -> None:
    with psycopg.connect(str(url), autocommit=True) as connection:
        connection.execute(statement)


def tables(store: Originals) -> list[str]:
    """All tables of the memory, and the statistics of the whole database."""
    rows = store.read(
        "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE n.nspname = 'clara_mlx' AND c.relkind IN ('r', 'm')"
    )
    return [*(row["name"] for row in rows), "pg_statistic", "pg_stats_ext"]


def find_in_rows(store: Originals, word: str) -> list[str]:
    """The tables that have a word anywhere in a row, as text or as bytes."""
    hexed = word.encode().hex()
    found = []
    for table in tables(store):
        rows = store.read(
            f"SELECT 1 FROM {table} t WHERE t::text ILIKE ? OR t::text ILIKE ? LIMIT 1",
            (f"%{word}%", f"%{hexed}%"),
        )
        found += [table] * len(rows)
    return found


def find_in_files(store: Originals, word: str) -> list[str]:
    """The tables and indexes whose files have a word; they are on this machine."""
    run(store.path, "CHECKPOINT")
    ((folder,),) = store.read("SELECT current_setting('data_directory')")
    rows = store.read(
        "SELECT c.oid::regclass::text AS name, pg_relation_filepath(c.oid) AS path FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'i', 't') "
        "AND (n.nspname = 'clara_mlx' OR n.nspname = 'pg_toast' OR c.relname = 'pg_statistic')"
    )
    found = []
    for row in rows:
        path = Path(folder) / row["path"]
        if not path.exists():
            pytest.skip("the files of this server are not on this machine")
        data = path.read_bytes().lower()
        if word.encode() in data:
            found.append(row["name"])
    return found


@pytest.fixture
def store(postgres_url: str) -> Iterator[Originals]:
    opened = open_store(postgres_url)
    yield opened
    opened.close()


def fill(memory: Memory, store: Originals) -> None:
    """A secret memory among others, and everything that is made of memories."""
    for number in range(30):
        memory.remember(f"other text {number}", session="other", source="other")
    memory.remember(
        f"the word is {SECRET}", metadata={"project": SECRET, "more": {"deep": SECRET}}, **NAMES
    )
    table = LatentTable.open(store, "a model", 2, 64, "int8")
    contents = store.backlog.pending(100)
    ids = [chunk.id for content in contents for chunk in store.chunks(content)]
    latents = np.random.default_rng(0).normal(size=(len(ids), 2, 64)).astype(np.float32)
    table.put(ids, latents, contents)
    store.backlog.note_failure(contents[-1], f"failed at {SECRET}")
    one = Round(
        at=1.0, session=NAMES["session"], project="/p", agent="a", api="chat", model="m",
        served_by="reasoner", number=0, seconds=1.0, tokens_in=9, tokens_sent=5,
        cached_expected=0, cached_reported=None, completion_tokens=1, cache="first", why="",
        compacted=(NAMES["handle"],), reason="", before=None, after=None, lost=None,
        memory_calls=0, error=f"it said {SECRET}",
    )  # fmt: skip
    memory.ledger.write([one])


def test_nothing_of_it_is_left(store: Originals, postgres_url: str) -> None:
    with Memory.open(postgres_url) as memory:
        fill(memory, store)
        run(postgres_url, "ANALYZE")
        assert {"memories", "contents", "rounds", "uses"} <= set(find_in_rows(store, SECRET))
        assert {"memories", "contents"} <= set(find_in_files(store, SECRET))
        handle = NAMES["handle"]
        chunk = store.chunks(store.content_id(handle))[0].id
        assert memory.forget(handle) == 1
        assert find_in_rows(store, SECRET) == []
        for name in tables(store):
            columns = store.read(
                "SELECT column_name AS name FROM information_schema.columns "
                "WHERE table_name = ? AND column_name IN ('chunk_id')",
                (name,),
            )
            for column in columns:
                rows = store.read(f"SELECT 1 FROM {name} WHERE {column['name']} = ?", (chunk,))
                assert not rows, f"{name} has something of a chunk that is gone"
        memory.vacuum()
        assert find_in_files(store, SECRET) == []
        assert memory.count() == 30 and memory.original(memory.page()[0].handle)
