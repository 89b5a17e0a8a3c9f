"""Moving a memory between a file and PostgreSQL: everything, once, and after any kill."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from postgres import new_database
from sizes import sized

from clara_mlx.errors import StoreError
from clara_mlx.store import ledger
from clara_mlx.store.care import verify
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.ledger import Round
from clara_mlx.store.moving.ends import exists, open_ends
from clara_mlx.store.moving.move import Moved, check, move
from clara_mlx.store.newcomer import text_of
from clara_mlx.store.opening import open_store
from clara_mlx.store.originals import Originals
from clara_mlx.store.shortened import ShortenedTable

SHAPE = (4, 64)  # of latents

#: Originals as they come from a hostile world.
ORIGINALS: list[str | bytes] = [
    "worker 7 failed\n" * 20,
    "",
    "NUL \0 inside, and \x10 its escape \x100",
    "lone \ud800 surrogate \udfff",
    "emoji \U0001f642, combining e\u0301, BOM \ufeff",
    b"\x00\xff\xfe bytes \x80",
    "in UTF-16".encode("utf-16"),
    bytes(range(256)) * 40,
]
NAMES = ["plain", "with\0NUL", "q'uote\"s \\ %s ?", "\x10escape", "ünï 🙂", " blank ", "x" * 4096]


def remember(store: Originals, original: str | bytes, number: int) -> str:
    data = original.encode("utf-8", "surrogatepass") if isinstance(original, str) else original
    kind = "text" if isinstance(original, str) else "bytes"
    text = text_of(data, kind)
    middle = len(text) // 2
    spans = [(a, b, b - a) for a, b in ((0, middle), (middle, len(text))) if b > a]
    name = NAMES[number % len(NAMES)]
    return store.remember(
        data,
        text,
        spans,
        kind=kind,
        source=name,
        session=name[::-1],
        metadata={"key": name, "nested": {"none": None, "nul": "\0", "lone": "\ud800"}},
        created_at=1e9 + number / 7,
        handle=f"m-{number} {name}"[:4096],
    )


def fill(store: Originals, count: int = 24) -> None:
    """A memory with everything in it."""
    for number in range(count):
        original = ORIGINALS[number % len(ORIGINALS)]
        if number >= 2 * len(ORIGINALS):  # before that, each content comes twice
            original = f"original {number}\n" * (1 + number % 50)
        remember(store, original, number)
    chunks = [row[0] for row in store.read("SELECT id FROM chunks ORDER BY id")]
    table = LatentTable.open(store, "f" * 64, *SHAPE, "int8")
    latents = np.random.default_rng(0).normal(size=(len(chunks), *SHAPE)).astype(np.float32)
    contents = [row[0] for row in store.read("SELECT id FROM contents ORDER BY id")]
    digests = [hashlib.sha256(bytes([id % 256])).digest() for id in chunks]
    table.put(chunks[:-1], latents[:-1], contents[:-1], digests[:-1])
    ShortenedTable.open(store, "extractive", "e" * 64, 4.0).put(
        chunks, [f"short \ud800 {id}" for id in chunks], contents[:-1]
    )
    handles = [row[0] for row in store.read("SELECT handle FROM memories ORDER BY id LIMIT 3")]
    with store.write() as connection:
        for number, handle in enumerate(handles):
            digest = hashlib.sha256(handle.encode()).digest()
            connection.execute(
                "INSERT INTO blocks (digest, kind, issued, text, handle, body) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (digest, "piece", digest[::-1], f"[clara \0 {number}", handle, b"\0body"),
            )
            connection.execute(
                "INSERT INTO mentions (handle, block) VALUES (?, ?)", (handle, digest)
            )
            for part in ("content", f"part {number}\0"):
                connection.execute(
                    "INSERT INTO edits (chain, part, block, explains) VALUES (?, ?, ?, ?)",
                    (digest[:16], part, digest, number % 2),
                )
    ledger.write(
        store,
        [
            Round(1.7e9 + n / 3, f"s-{n}\0", "/p", error="\0" * n, tokens_in=n, before=n or None,
                  compacted=tuple(handles[:n]), asked=((handles[0], "expand"),))
            for n in range(3)
        ],
    )  # fmt: skip


def content_of(store: Originals) -> dict[str, Any]:
    """Everything in a memory but ids, which each database has of its own."""
    store.settle()
    made = 'c.sha256, c.kind, k.start, k."end", k.tokens'
    join = "JOIN chunks k ON k.id = x.chunk_id JOIN contents c ON c.id = k.content_id"
    queries = {
        "memories": "SELECT m.handle, m.source, m.session, m.created_at, c.sha256, c.kind "
        "FROM memories m JOIN contents c ON c.id = m.content_id ORDER BY m.id",
        "chunks": f"SELECT {made} FROM chunks k JOIN contents c ON c.id = k.content_id",
        "latents": f"SELECT {made}, x.crc, x.data, x.digest FROM latents x {join}",
        "shortened": f"SELECT {made}, x.crc, x.data FROM shortened x {join}",
        "blocks": "SELECT digest, kind, issued, text, handle, body FROM blocks",
        "mentions": "SELECT handle, block FROM mentions",
        "edits": "SELECT chain, part, block, explains FROM edits",
        "rounds": f"SELECT {', '.join(ledger.KEYS[1:])}, at, error, before, compacted FROM rounds",
        "uses": "SELECT u.handle, u.how, r.at FROM uses u JOIN rounds r ON r.id = u.round",
        "days": f"SELECT {', '.join((*ledger.KEYS, *ledger.SUMS))}, first_at, last_at FROM days",
        "pending": "SELECT c.sha256 FROM pending p JOIN contents c ON c.id = p.content_id",
    }
    found: dict[str, Any] = {}
    for name, sql in queries.items():
        rows = [tuple(row) for row in store.read(sql)]
        found[name] = rows if name == "memories" else sorted(rows, key=repr)
    found["metadata"] = {m.handle: m.metadata for m in store.memories()}
    found["originals"] = {m.handle: store.original(m.handle) for m in store.memories()}
    return found


def moved(source: str, target: str) -> Moved:
    with open_ends(source, target, writes=True) as ends:
        return move(*ends)


def looked_up(source: str, target: str) -> Moved:
    with open_ends(source, target, writes=False) as ends:
        return check(*ends)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "memory.db"
    with closing(open_store(path)) as store:
        fill(store)
    return str(path)


@pytest.fixture
def url() -> Iterator[str]:
    with new_database() as url:
        yield url


def test_there_and_back_everything_is_the_same(file: str, url: str, tmp_path: Path) -> None:
    back = str(tmp_path / "back.db")
    first = moved(file, url)
    assert not first.tally.unsettled and first.compared == 24
    assert {name: c.moved for name, c in first.tally.tables.items()}["memories"] == 24
    moved(url, back)
    contents = []
    for name in (file, url, back):
        with closing(open_store(name)) as store:
            contents.append(content_of(store))
            assert not verify(store).problems
    for table, rows in contents[0].items():
        assert contents[1][table] == rows, table
        assert contents[2][table] == rows, table


def test_what_is_there_is_not_sent_again(file: str, url: str) -> None:
    moved(file, url)
    with closing(open_store(file)) as store:
        remember(store, "one more", 99)
    again = moved(file, url)
    assert {n: c.moved for n, c in again.tally.tables.items() if c.moved} == {"memories": 1}
    assert again.tally.original_bytes == len("one more")


def test_a_check_says_what_would_be_moved_and_writes_nothing(file: str, tmp_path: Path) -> None:
    with new_database(empty=True) as url:
        before = looked_up(file, url)
        assert not exists(url)
        new_file = tmp_path / "new.db"
        assert looked_up(file, str(new_file)).tally == before.tally
        assert not new_file.exists()
        assert moved(file, url).tally.tables == before.tally.tables
        after = looked_up(file, url)
        assert not any(counts.moved for counts in after.tally.tables.values())
        assert {n: c.there for n, c in after.tally.tables.items()} == {
            n: c.moved for n, c in before.tally.tables.items()
        }
    with pytest.raises(StoreError, match="no memory there"):
        looked_up(str(tmp_path / "none.db"), file)
    with pytest.raises(StoreError, match="moved to itself"):
        moved(file, file)


def test_differences_are_listed_and_nothing_is_overwritten(file: str, url: str) -> None:
    with closing(open_store(url)) as store:
        remember(store, "another original", 0)
        remember(store, ORIGINALS[1], 1)
        store.remember(b"x", "x", [(0, 1, 1)], handle=f"m-2 {NAMES[2]}", source="elsewhere")
        LatentTable.open(store, "0" * 64, *SHAPE, "int8")
        before = content_of(store)
    done = moved(file, url)
    counts = done.tally.tables["memories"]
    assert (counts.moved, counts.there, counts.conflicts) == (21, 1, 2)
    assert done.tally.tables["latents"].other and not done.tally.tables["latents"].moved
    text = "\n".join(done.tally.sentences)
    assert "'m-0 plain': the target has one with another original; it keeps its own" in text
    assert "a memory that it mentions was not moved" in text
    with closing(open_store(url)) as store:
        after = content_of(store)
        assert set(before["memories"]) <= set(after["memories"])
        for handle, original in before["originals"].items():
            assert after["originals"][handle] == original
        assert not verify(store).problems


def test_what_is_damaged_is_named_and_the_rest_is_moved(file: str, url: str) -> None:
    with closing(open_store(file)) as store, store.write() as connection:
        connection.execute("UPDATE contents SET data = ? WHERE id = 1", (b"rot",))
        connection.execute("UPDATE latents SET data = ? WHERE id = 5", (b"rot",))
    done = moved(file, url)
    assert done.tally.tables["memories"].left == 2  # the content came twice
    assert done.tally.tables["memories"].moved == 22
    assert "content 1 is damaged" in done.tally.sentences[0]
    with closing(open_store(url)) as store:
        assert not verify(store).problems


CHILD = """
import sys
from clara_mlx.cli.app import main
sys.argv[1:] = ["move", "--from", sys.argv[1], "--to", sys.argv[2], "--json"]
main()
"""


@pytest.mark.alone
@pytest.mark.parametrize("back", sized([False], [False, True]))
def test_a_move_that_is_killed_goes_on(tmp_path: Path, url: str, back: bool) -> None:
    source, target = str(tmp_path / "many.db"), url
    with closing(open_store(source)) as store:
        fill(store, sized(300, 4000))
        expected = content_of(store)
    if back:
        moved(source, url)
        source, target = url, str(tmp_path / "back.db")
    command = [sys.executable, "-c", CHILD, source, target]
    for kills in range(1, sized(3, 12)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = kills * sized(190, 750)  # the later ones while latents are moved
        while process.poll() is None and count(target) < wanted:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["originals_compared"] == len(expected["memories"])
    assert result["tables"]["memories"]["there"]
    with closing(open_store(target)) as store:
        after = content_of(store)
        assert not verify(store).problems
    for table, rows in expected.items():
        assert after[table] == rows, table


def count(name: str) -> int:
    """Memories and latents in a database that somebody else may just be making."""
    if not exists(name):
        return 0
    counted = "SELECT (SELECT count(*) FROM memories) + (SELECT count(*) FROM latents)"
    with closing(open_store(name)) as store:
        return int(store.read(counted)[0][0])


def test_the_command(cli: Any, file: str, url: str) -> None:
    check = cli("move", "--from", file, "--to", url, "--check")
    assert "to be moved" in check.stdout and "24" in check.stdout
    assert json.loads(cli("move", "--from", file, "--to", url, "--json").stdout)["check"] is False
    assert (
        "read back from the target and are the same: 24"
        in cli("move", "--from", file, "--to", url).stdout
    )
    with closing(open_store(file)) as store:
        store.forget({"handle": f"m-0 {NAMES[0]}"})
        remember(store, "rewritten", 0)
    differs = cli("move", "--from", file, "--to", url, ok=False)
    assert differs.exit_code == 1 and "another original" in differs.output
    assert "Nothing was overwritten" in differs.output.replace("\n", " ")
