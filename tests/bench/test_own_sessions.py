"""The sessions that agents keep on disk, as material to measure with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import own_sessions
import pytest
from real_trajectories import read_runs


def record(number: int, role: str, content: Any) -> dict[str, Any]:
    """A record of Claude Code's sessions."""
    message = {"role": role, "content": content, "id": f"a{number}"}
    about = {"uuid": f"u{number}", "sessionId": "s", "isSidechain": False, "cwd": "/w"}
    return {"type": role, "message": message, "timestamp": "2026-01-01T00:00:00Z", **about}


def test_what_was_used_again_is_a_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = (
        "src/store.py:15: in take\ntests/test_io.py::test_load FAILED\npassword=hunter2hunter2"
    )
    records = [
        record(0, "user", "Fix src/main.py."),
        record(1, "assistant", [{"type": "tool_use", "id": "c", "name": "Bash", "input": {}}]),
        record(2, "user", [{"type": "tool_result", "tool_use_id": "c", "content": printed}]),
    ]
    for number in range(3, 21, 2):
        records += [record(number, "assistant", "Going on."), record(number + 1, "user", "Yes.")]
    call = {"file_path": "src/store.py", "other": "src/main.py"}
    used = {"type": "tool_use", "id": "d", "name": "Read", "input": call}
    records.append(record(21, "assistant", [used]))
    file = tmp_path / "s.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in records))
    monkeypatch.setattr(sys, "argv", ["own", str(file), "--to", str(tmp_path / "to")])
    own_sessions.main()
    (run,) = read_runs(tmp_path / "to", [])
    assert run.name == "claude-s" and len(run.messages) == 22
    ((need,),) = run.needs.values()
    assert (need["lit"], need["where"], need["cls"]) == ("src/store.py", 2, "strict")
    assert "hunter2hunter2" not in (tmp_path / "to/claude-s.json").read_text()


def test_nothing_to_measure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["own", str(tmp_path), "--to", str(tmp_path / "to")])
    with pytest.raises(SystemExit, match="there is no session of an agent in it"):
        own_sessions.main()
