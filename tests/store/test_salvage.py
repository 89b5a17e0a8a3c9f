"""What can be read of a damaged file is read, exported and counted; the rest is named."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory
from clara_mlx.store.exports import Incomplete

COUNT = 40


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, str]:
    """The originals, by handle, of a file at ``m.db`` that was closed.

    They are large beside the schema, of which a fifth of the file must still have all.
    """
    with Memory.open(tmp_path / "m.db") as memory:
        return {
            memory.remember(text): text
            for text in (f"text {number} {os.urandom(9000).hex()}" for number in range(COUNT))
        }


def exported(memory: Memory) -> tuple[dict[str, str], list[str]]:
    """What an export gives, and what it says of the rest."""
    file = io.StringIO()
    problems: list[str] = []
    try:
        count = memory.export(file)
    except Incomplete as error:
        count, problems = error.written, error.problems
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert len(lines) == count
    return {line["handle"]: line["text"] for line in lines}, problems


def damage_contents(path: Path, handles: list[str]) -> None:
    """Change the stored bytes of some originals."""
    with Memory.open(path) as memory, memory.file.write() as connection:
        connection.executemany(
            "UPDATE contents SET data = zeroblob(length(data)) WHERE id = "
            "(SELECT content_id FROM memories WHERE handle = ?)",
            [(handle,) for handle in handles],
        )


def test_an_export_goes_on_past_damaged_originals(tmp_path: Path, texts: dict[str, str]) -> None:
    bad = [next(iter(texts)), list(texts)[COUNT // 2]]
    damage_contents(tmp_path / "m.db", bad)
    with Memory.open(tmp_path / "m.db") as memory:
        given, problems = exported(memory)
        findings = memory.verify()
    assert given == {handle: text for handle, text in texts.items() if handle not in bad}
    assert len(problems) == 2 and all(handle in " ".join(problems) for handle in bad)
    assert (len(findings.damaged_contents), findings.can_be_exported) == (2, COUNT - 2)


def test_rows_of_a_wrong_type_are_named(tmp_path: Path, texts: dict[str, str]) -> None:
    """A handle of bytes, which an older version took, ended the export."""
    with Memory.open(tmp_path / "m.db") as memory:
        with memory.file.write() as connection:
            connection.execute("UPDATE memories SET handle = x'7a7a' WHERE id = 7")
        given, problems = exported(memory)
    assert len(given) == COUNT - 1 and len(problems) == 1
    assert "handle must be a string" in problems[0]


@pytest.mark.parametrize("part", [0.95, 0.7, 0.4, 0.2])
def test_a_file_that_was_cut_off(tmp_path: Path, texts: dict[str, str], part: float) -> None:
    path = tmp_path / "m.db"
    os.truncate(path, int(path.stat().st_size * part))
    before = path.read_bytes()
    with Memory.open(path) as memory:
        findings = memory.verify()
        given, problems = exported(memory)
        assert findings.problems
        assert findings.can_be_exported == len(given)
        assert all(texts[handle] == text for handle, text in given.items())
        readable = 0
        for handle, text in texts.items():
            try:
                assert memory.original(handle) == text
                readable += 1
            except StoreError:
                continue
        assert len(given) >= readable
        if len(given) < COUNT:
            assert problems
        with pytest.raises(StoreError, match="it is damaged"):
            memory.remember("more")
    assert path.read_bytes() == before
    if part > 0.5:
        assert len(given) > COUNT * part * 0.5


def test_what_is_no_database_is_refused_as_before(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(os.urandom(9000))
    with pytest.raises(StoreError, match="not a database"):
        Memory.open(path)
