"""Sessions that the real agents have written: read as conversations, and remembered once."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import sized

from clara_mlx.agents.agent import Machine
from clara_mlx.agents.backfill import backfill
from clara_mlx.agents.sessions import SOURCES, conversations, files_below, source_of
from clara_mlx.agents.sessions.session import Broken, Source
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory

TOKEN = "gh" + "p_" + "a1B2" * 9  # put together here, so that no scanner takes it for a leak

DATA = Path(__file__).parent / "data" / "sessions"

#: What each of the recorded sessions holds: its tools' calls in their order.
CALLS = {
    "claude": ["Agent", "Bash", "Bash"],
    "codex": ["exec_command"] * 3,
    "opencode": ["bash"] * 3,
    "qwen-code": ["run_shell_command"] * 3,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with a session of each agent."""
    folder = tmp_path / "home"
    shutil.copytree(DATA, folder)
    for file in folder.rglob("*.*"):
        if file.is_file():
            file.write_text(file.read_text().replace("{{TOKEN}}", TOKEN))
    database = folder / ".local/share/opencode/opencode.db"
    database.parent.mkdir(parents=True)
    with sqlite3.connect(database) as db:
        db.executescript((folder / "opencode.sql").read_text())
    db.close()
    return folder


def files_of(name: str, home: Path) -> list[tuple[Source, Path]]:
    return [(SOURCES[name], file) for file in SOURCES[name].files(Machine(home))]


def names_of_calls(messages: list[dict[str, Any]]) -> list[str]:
    return [call["function"]["name"] for one in messages for call in one.get("tool_calls", ())]


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_session_is_a_conversation(home: Path, name: str) -> None:
    turns = [turn for source, file in files_of(name, home) for turn in source.read(file)]
    assert not [turn for turn in turns if isinstance(turn, Broken)]
    read = conversations(turns)
    session = next(one for one in read if "/" not in one)
    messages = [one for one in read[session] if one["role"] != "developer"]
    assert names_of_calls(messages) == CALLS[name]
    results = {one["tool_call_id"]: one["content"] for one in messages if one["role"] == "tool"}
    asked = {call["id"] for one in messages for call in one.get("tool_calls", ())}
    assert asked == set(results)
    assert any("tests/test_io.py::test_load FAILED\n" in text for text in results.values())
    said = [one for one in messages if one["role"] == "assistant"]
    assert said[-1]["content"] == "Done: one test fails, tests/test_io.py::test_load."
    if name != "codex":  # whose items don't say which answer they are a part of
        assert said[0]["content"] == "Looking." and said[0]["tool_calls"]
    assert all(turn.project == "/home/me/work" for turn in turns if not isinstance(turn, Broken))


def test_a_subagent_has_a_session_of_its_own(home: Path) -> None:
    turns = [turn for source, file in files_of("claude", home) for turn in source.read(file)]
    main, sub = sorted(conversations(turns))
    assert sub.startswith(f"{main}/")
    assert names_of_calls(conversations(turns)[sub]) == ["Bash"] * 3


def test_files_are_recognised_wherever_they_lie(home: Path) -> None:
    found = sorted({source.name for source, _ in files_below(home)})
    assert found == sorted(SOURCES)
    for name in SOURCES:
        for source, file in files_of(name, home):
            assert source_of(file) is source
    (home / "other.jsonl").write_text('{"role": "user", "content": "x"}\n')
    with pytest.raises(ClaraError, match="not a session of Claude Code"):
        list(files_below(home / "other.jsonl"))
    (home / "empty").mkdir()
    with pytest.raises(ClaraError, match="there is no session"):
        list(files_below(home / "empty"))


def test_twice_adds_nothing_and_a_session_that_grew_only_what_is_new(
    home: Path, memory: Memory
) -> None:
    files = [one for name in SOURCES for one in files_of(name, home)]
    planned = backfill(files, None, dry_run=True)
    assert memory.status().memories == 0
    assert backfill(files, memory, dry_run=True).new == planned.new
    done = backfill(files, memory)
    assert done.new == planned.new == memory.status().memories > 30
    assert not done.broken
    assert backfill(files, memory).new == 0

    (_, file), *_ = (one for one in files if "subagents" not in str(one[1]))
    last = json.loads(file.read_text().splitlines()[-2])
    last["uuid"] = "another"
    last["message"]["content"] = [{"type": "text", "text": "It grew."}]
    with file.open("a") as lines:
        lines.write(json.dumps(last) + "\n" + json.dumps(last)[:50])  # and is being written
    grown = backfill(files, memory)
    assert (grown.new, grown.broken) == (1, [])
    assert memory.status().memories == planned.new + 1


def test_source_session_project_and_time_are_kept(home: Path, memory: Memory) -> None:
    backfill(files_of("codex", home), memory)
    hits = memory.recall("test_load", 5, {"project": "/home/me/work", "role": "tool"})
    (hit,) = hits
    assert hit.source == "exec_command"
    assert "python3 -c" in hit.metadata["command"]
    assert hit.metadata["agent"] == "codex"
    assert hit.session == "01a22aff-a6c6-79b0-a863-e94e46c419a8"
    (stored,) = memory.list({"handle": hit.handle})
    assert stored.created_at == pytest.approx(1796017727.78, abs=1)


def test_secrets_are_masked_if_that_is_wished(home: Path, tmp_path: Path) -> None:
    for masked in (False, True):
        with Memory.open(tmp_path / f"{masked}.db") as memory:
            done = backfill(files_of("qwen-code", home), memory, masked=masked)
            texts = " ".join(memory.text(one.handle) for one in memory.list())
        assert (TOKEN in texts) is not masked
        assert ("[masked: " in texts, done.secrets > 0) == (masked, masked)


def test_what_is_broken_is_named_and_the_rest_is_read(home: Path, memory: Memory) -> None:
    (_, file), *_ = files_of("codex", home)
    lines = file.read_text().splitlines()
    lines[3] = lines[3][:40]
    lines.insert(5, '{"type": "response_item", "payload": {"type": "message", "content": [7]}}')
    lines.insert(6, '["a list"]')
    lines.insert(
        7, '{"type": "response_item", "payload": {"type": "local_shell_call", "action": 1}}'
    )
    file.write_text("\n".join(lines) + "\n")
    done = backfill(files_of("codex", home), memory)
    assert [one.where for one in done.broken] == [f"{file}:4", f"{file}:8"]
    assert done.new >= 7


def test_a_compressed_session_of_codex_is_the_same_session(home: Path, memory: Memory) -> None:
    zstandard = pytest.importorskip("zstandard")
    (_, file), *_ = files_of("codex", home)
    new = backfill(files_of("codex", home), memory).new
    packed = file.with_name(file.name + ".zst")
    packed.write_bytes(zstandard.ZstdCompressor().compress(file.read_bytes()))
    file.unlink()
    assert [path for _, path in files_of("codex", home)] == [packed]
    assert source_of(packed) is SOURCES["codex"]
    again = backfill(files_of("codex", home), memory)
    assert (again.new, again.sessions[0].texts) == (0, new)
    content = packed.read_bytes()
    packed.write_bytes(content[:400] + b"\xff" * 400 + content[800:])
    assert backfill(files_of("codex", home), memory).broken


def test_an_earlier_opencode_kept_files(home: Path, tmp_path: Path, memory: Memory) -> None:
    """Its storage had the same objects as today's tables."""
    with sqlite3.connect(home / ".local/share/opencode/opencode.db") as db:
        (session,) = db.execute("SELECT id, directory FROM session")
        messages = db.execute("SELECT id, data FROM message").fetchall()
        parts = db.execute("SELECT id, message_id, data FROM part").fetchall()
    db.close()
    storage = tmp_path / "data/opencode/storage"

    def put(place: str, content: Any) -> None:
        path = storage / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    about = {"id": session[0], "projectID": "p", "directory": session[1]}
    put(f"session/p/{session[0]}.json", about)
    for identifier, data in messages:
        put(f"message/{session[0]}/{identifier}.json", json.loads(data) | {"id": identifier})
    for identifier, message, data in parts:
        put(f"part/{message}/{identifier}.json", json.loads(data) | {"id": identifier})
    machine = Machine(tmp_path, {"XDG_DATA_HOME": str(tmp_path / "data")})
    (file,) = SOURCES["opencode"].files(machine)
    assert source_of(file) is SOURCES["opencode"]
    old = conversations(SOURCES["opencode"].read(file))
    new = conversations(SOURCES["opencode"].read(home / ".local/share/opencode/opencode.db"))
    assert old == new


ODD = st.sampled_from([None, 0, -1.5, True, "", "\ud800", "x" * 300, [], {}, [None], {"type": 1}])


def with_odd(value: Any, path: list[int], odd: Any) -> Any:
    """A value in which one part of its inside is another."""
    if not path or not isinstance(value, dict | list) or not value:
        return odd
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = with_odd(value[key], path[1:], odd)
    return copy


@pytest.mark.parametrize("name", ["claude", "codex", "qwen-code"])
def test_odd_records_are_read_or_named(home: Path, tmp_path: Path, name: str) -> None:
    """A file of an agent is text from outside: whatever is in it, nothing breaks."""
    lines = [line for _, file in files_of(name, home) for line in file.read_text().splitlines()]
    file = tmp_path / "odd.jsonl"
    with Memory.open(tmp_path / "odd.db") as memory:

        @settings(max_examples=sized(12, 1000), deadline=None, derandomize=True, database=None)
        @given(st.data())
        def check(data: Any) -> None:
            record = json.loads(data.draw(st.sampled_from(lines)))
            path = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=6))
            odd = with_odd(record, path, data.draw(ODD))
            file.write_text(json.dumps(odd) + "\n")
            backfill([(SOURCES[name], file)], memory)
            conversations(SOURCES[name].read(file))
            source_of(file)

        check()
