"""A memory as plain tables: whatever is in it comes out, for programs that know nothing of it."""

from __future__ import annotations

import importlib.util
import json
import re
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hostile_texts import HOSTILE
from trajectories import trajectory

from clara_mlx.context import Budget, Context
from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory
from clara_mlx.store import plain_sqlite
from clara_mlx.store.exports import Incomplete
from clara_mlx.store.ledger import Round
from clara_mlx.store.plain_schema import SCHEMA

AT = 1_796_029_921.25  # 2026-11-30T09:12:01.250Z


@pytest.fixture
def worked(memory: Memory) -> Memory:
    """A memory of a conversation that was compacted, with figures, and of other things."""
    context = Context(memory, budget=Budget(window=8_000, reserve=500))
    messages = [message for step in trajectory(14) for message in step]
    prepared = context.prepare(messages, session="work")
    handle = prepared.compacted[0]
    memory.remember("a quokka was here", source="note", metadata={"project": "/p", "n": [1]})
    memory.remember(b"\xff\x00 bytes", source="raw", session="other")
    one = Round(AT, "work", "/p", "codex", tokens_in=9, tokens_sent=5, compacted=(handle,))
    memory.ledger.write([one, Round(AT + 1, "gone", tokens_in=1, tokens_sent=1)])
    return memory


def tables(file: Path) -> sqlite3.Connection:
    """The file, opened by the SQLite that comes with Python."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def rows(file: Path, sql: str, *parameters: Any) -> list[Any]:
    connection = tables(file)
    try:
        return [tuple(row) for row in connection.execute(sql, parameters).fetchall()]
    finally:
        connection.close()


def test_everything_is_in_the_tables(worked: Memory, tmp_path: Path) -> None:
    file = tmp_path / "plain.db"
    count = worked.export_sqlite(file)
    there = list(worked.list())
    assert count == len(there) > 3
    found = rows(
        file,
        "SELECT m.handle, m.source, m.session, m.metadata, o.text FROM memories m "
        "JOIN originals o ON o.id = m.original ORDER BY m.handle",
    )
    assert [row[0] for row in found] == sorted(one.handle for one in there)
    by_handle = {one.handle: one for one in there}
    for handle, source, session, metadata, text in found:
        one = by_handle[handle]
        assert (source, session, json.loads(metadata)) == (one.source, one.session, one.metadata)
        assert text == worked.text(handle)
    # Whatever is no text is there as bytes, too.
    assert [data for (data,) in rows(file, "SELECT data FROM originals WHERE kind = 'bytes'")] == [
        b"\xff\x00 bytes"
    ]
    handle = rows(file, "SELECT handle FROM memories WHERE project = '/p'")[0][0]
    assert worked.text(handle) == "a quokka was here"
    for handle, start, end, text in rows(file, "SELECT handle, start, end, text FROM chunk_texts"):
        assert text == worked.text(handle)[start:end] or "\0" in worked.text(handle)
    assert rows(file, "SELECT session, memories FROM sessions WHERE session = 'other'") == [
        ("other", 1)
    ]
    assert rows(file, "SELECT count(*) FROM blocks")[0][0] > 0
    assert rows(file, "PRAGMA foreign_key_check") == []
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]


def test_times_are_iso_and_sqlites_own_functions_read_them(worked: Memory, tmp_path: Path) -> None:
    file = tmp_path / "plain.db"
    worked.export_sqlite(file)
    assert rows(file, "SELECT at, session, cached, prefilled FROM rounds ORDER BY id LIMIT 1") == [
        ("2026-11-30T09:12:01.250Z", "work", 0, 5)
    ]
    assert rows(file, "SELECT strftime('%s', at) FROM rounds WHERE session = 'work'") == [
        (str(int(AT)),)
    ]
    for (time,) in rows(file, "SELECT created_at FROM memories"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert plain_sqlite.iso(1e300) == "1e+300"
    assert rows(file, "SELECT value FROM about WHERE key = 'format'") == [("1",)]


def test_the_sums_are_those_of_the_ledger(worked: Memory, tmp_path: Path) -> None:
    file = tmp_path / "plain.db"
    worked.export_sqlite(file)
    (sums,) = worked.ledger.sums()
    names = "requests, rounds, tokens_in, tokens_sent, cached, prefilled, compactions"
    totals = ", ".join(f"sum({name})" for name in names.split(", "))
    expected = [tuple(getattr(sums, name) for name in names.split(", "))]
    assert rows(file, f"SELECT {totals} FROM days") == expected
    assert rows(file, "SELECT count(*), sum(prefilled) FROM rounds") == [
        (sums.rounds, sums.prefilled)
    ]


def test_a_filter_leaves_out_what_is_not_asked_for(worked: Memory, tmp_path: Path) -> None:
    file = tmp_path / "plain.db"
    assert worked.export_sqlite(file, {"source": "note"}) == 1
    for table in ("rounds", "uses", "days", "blocks", "mentions", "sessions"):
        assert rows(file, f"SELECT count(*) FROM {table}") == [(0,)], table
    worked.export_sqlite(file, {"session": "work"})
    assert rows(file, "SELECT DISTINCT session FROM rounds") == [("work",)]
    assert rows(file, "SELECT count(*) FROM originals WHERE text LIKE '%quokka%'") == [(0,)]


def test_any_sqlite_from_3_31_on_opens_it(worked: Memory, tmp_path: Path) -> None:
    file = tmp_path / "plain.db"
    worked.export_sqlite(file)
    header = file.read_bytes()[:100]
    # Format 4, no write-ahead log; and nothing in the schema that is newer than 3.31.
    assert (header[18], header[19], int.from_bytes(header[44:48], "big")) == (1, 1, 4)
    schema = " ".join(sql for (sql,) in rows(file, "SELECT sql FROM sqlite_schema WHERE sql <> ''"))
    for newer in ("STRICT", "GENERATED", "contentless_delete", "vec0", "RETURNING"):
        assert newer not in schema
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("plain.db")] == ["plain.db"]
    assert file.stat().st_mode & 0o077 == 0


def test_hostile_texts_come_out_whole(memory: Memory, tmp_path: Path) -> None:
    given = {
        memory.remember(text, metadata={"a": "\ud800 b"}): text.encode("utf-8", "surrogatepass")
        for text in HOSTILE.values()
    }
    memory.export_sqlite(tmp_path / "plain.db")
    for handle, kind, size, text, data in rows(
        tmp_path / "plain.db",
        "SELECT m.handle, o.kind, o.bytes, o.text, o.data "
        "FROM memories m JOIN originals o ON o.id = m.original",
    ):
        original = given.pop(handle)
        assert (data if kind == "bytes" else text.encode()) == original and size == len(original)
    assert not given


def test_it_is_complete_or_not_there(
    worked: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plain.db"
    file.write_text("what was there before")
    monkeypatch.setattr(plain_sqlite, "AT_THE_END", ("CREATE TABLE wrong (",))
    with pytest.raises(StoreError, match=r"syntax|incomplete"):
        worked.export_sqlite(file)
    assert file.read_text() == "what was there before"
    assert [one.name for one in tmp_path.iterdir() if "plain" in one.name] == ["plain.db"]
    with pytest.raises(StoreError, match="regular file"):
        worked.export_sqlite(tmp_path)
    with pytest.raises(StoreError):
        worked.export_sqlite(tmp_path / "no" / "such" / "folder.db")


def test_of_a_damaged_memory_the_rest_is_written(worked: Memory, tmp_path: Path) -> None:
    handle = next(one.handle for one in worked.list({"source": "note"}))
    with worked.file.write() as connection:
        connection.execute(
            "UPDATE contents SET data = x'00' WHERE id = "
            "(SELECT content_id FROM memories WHERE handle = ?)",
            (handle,),
        )
    with pytest.raises(Incomplete) as raised:
        worked.export_sqlite(tmp_path / "plain.db")
    assert handle in raised.value.problems[0]
    found = {one for (one,) in rows(tmp_path / "plain.db", "SELECT handle FROM memories")}
    assert found == {one.handle for one in worked.list()} - {handle}


def test_one_original_at_a_time_is_in_memory(memory: Memory, tmp_path: Path) -> None:
    for number in range(6):
        memory.remember(f"{number}{' ' * 600_000}")  # few words, which take time
    tracemalloc.start()
    try:
        memory.export_sqlite(tmp_path / "plain.db")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_500_000  # several copies of one
    assert (tmp_path / "plain.db").stat().st_size > 3_600_000


def test_datasette_opens_it_and_finds_a_word(worked: Memory, tmp_path: Path) -> None:
    if importlib.util.find_spec("datasette") is None:
        pytest.skip("datasette is not installed: pip install 'clara-mlx[test]'")
    file = tmp_path / "plain.db"
    worked.export_sqlite(file)

    def get(path: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "datasette", str(file), "--get", path],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    names = {table["name"] for table in get("/plain.json")["tables"] if not table["hidden"]}
    assert {"memories", "originals", "chunks", "blocks", "rounds", "days"} <= names
    found = get("/plain/originals.json?_search=quokka&_shape=array")
    assert [one["text"] for one in found] == ["a quokka was here"]


def test_parquet_has_a_row_for_each_memory(worked: Memory, tmp_path: Path) -> None:
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="pyarrow is not installed: pip install 'clara-mlx[parquet]'"
    )
    count = worked.export_parquet(tmp_path / "m.parquet")
    found = parquet.read_table(tmp_path / "m.parquet").to_pylist()
    assert len(found) == count == len(list(worked.list()))
    (note,) = [row for row in found if row["source"] == "note"]
    assert (note["text"], note["project"]) == ("a quokka was here", "/p")
    assert note["created_at"].tzinfo is not None


def test_every_column_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "EXPORT.md").read_text()
    connection = sqlite3.connect(":memory:")
    for statement in SCHEMA:
        connection.execute(statement)
    named = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    for (table,) in named:
        assert f"**{table}**" in page
        section = page.partition(f"**{table}**")[2].partition("\n**")[0]
        for _, column, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
            assert re.search(rf"\b{column}\b", section), (table, column)
    connection.close()
