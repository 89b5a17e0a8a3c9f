from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.train.examples.documents import make_documents, make_records, write_records
from clara_mlx.train.examples.trajectories import TrajectoryError, read

TOKEN = "gh" + "p_" + "a1B2" * 9  # put together here, so that no scanner takes it for a leak

PYTEST = "FAILED tests/test_store.py::test_take - KeyError: 'bolt'\n1 failed, 3 passed in 0.62s\n"
GREP = "inventory/store.py:15:    def take(self, name, count):\nREADME.md:3:take one\n"


def call(name: str, arguments: dict[str, Any], id: str) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"id": id, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


MESSAGES = [
    {"role": "system", "content": "You are an agent."},
    {"role": "user", "content": "Fix it."},
    call("bash", {"command": "pytest -q"}, "c1"),
    {"role": "tool", "tool_call_id": "c1", "content": PYTEST},
    call("grep", {"pattern": "take"}, "c2"),
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": GREP}]},
    {"role": "tool", "tool_call_id": "c3", "content": None},
    {"role": "assistant", "content": "Done."},
]
STEPS = [
    {"action": "pytest -q\n", "observation": PYTEST, "response": "Let us see.", "state": "{}"},
    {"action": "grep -rn take .", "observation": GREP, "thought": "", "state": {"open_file": ""}},
    {"action": "submit", "observation": "", "state": {}},
]
EXPECTED = [("pytest", PYTEST), ("ripgrep", GREP)]


def outputs(file: Path, text: str) -> list[tuple[str | None, str]]:
    file.write_text(text)
    return [(output.tool, output.text) for output in read(file).outputs]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.traj", json.dumps({"environment": "e", "trajectory": STEPS, "history": []})),
        ("run.traj", json.dumps({"history": MESSAGES, "trajectory": STEPS}, indent=2)),
        ("chat.json", json.dumps(MESSAGES)),
        ("chat.json", json.dumps({"model": "m", "messages": MESSAGES}, indent=1)),
        ("chat.jsonl", "".join(json.dumps(message) + "\n" for message in MESSAGES)),
        ("chats.jsonl", json.dumps({"messages": MESSAGES}) + "\n"),
        ("chats.log", json.dumps({"messages": MESSAGES}) + "\n\n" + json.dumps({"messages": []})),
        ("runs.json", json.dumps([{"messages": MESSAGES}])),
        ("saved.json", json.dumps({"metadata": {}, "session": {"id": 1, "messages": MESSAGES}})),
    ],
)
def test_formats(tmp_path: Path, name: str, text: str) -> None:
    if name == "chats.log":
        text = text.replace('{"messages": []}', json.dumps(MESSAGES[1]))
    assert outputs(tmp_path / name, text) == EXPECTED


def test_where_and_command(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(json.dumps(message) + "\n" for message in MESSAGES))
    first, second = read(file).outputs
    assert (first.where, first.command) == (f"{file}:4", "pytest -q")
    assert (second.where, second.command) == (f"{file}:6", "grep")
    file = tmp_path / "run.traj"
    file.write_text(json.dumps({"trajectory": STEPS}, indent=1))
    lines = file.read_text().splitlines()
    for output in read(file).outputs:
        line = int(output.where.rpartition(":")[2])
        assert lines[line - 1].strip() == "{"
        assert json.dumps(output.text) in "".join(lines[line : line + 3])


def test_swe_agents_history_with_tool_calls(tmp_path: Path) -> None:
    history = [
        call("bash", {"command": "pytest"}, "c1") | {"message_type": "action"},
        {
            "role": "tool",
            "content": [{"type": "text", "text": PYTEST}],
            "tool_call_ids": ["c1"],
            "message_type": "observation",
        },
    ]
    assert outputs(tmp_path / "h.traj", json.dumps({"history": history})) == EXPECTED[:1]


def shell(command: str, output: str) -> str:
    return (
        f"<shell-output>\nThe command `{command}` (started 0.10s ago) has finished running in the "
        f"directory /repo in shell default (return code = 1)\n\nThe latest output is:\n\n"
        f"```\n{output}\n```\n</shell-output>"
    )


def test_compymac_envelopes(tmp_path: Path) -> None:
    view = '<full-file-view path="/repo/a.env" total_lines="2">\n     1→PORT=1\n     2→HOST=h\n'
    messages = [
        {"role": "tool", "tool_call_id": "x", "content": shell("cd /repo && pytest -q", PYTEST)},
        {"role": "tool", "tool_call_id": "y", "content": view + "</full-file-view>"},
        call("git_status", {}, "z"),
        {
            "role": "tool",
            "tool_call_id": "z",
            "content": '<tool-result name="git_status">\nOn branch main\n</tool-result>',
        },
    ]
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"session": {"messages": messages}}))
    assert [(output.command, output.tool, output.text) for output in read(file).outputs] == [
        ("cd /repo && pytest -q", "pytest", PYTEST),
        ("cat /repo/a.env", "env", "PORT=1\nHOST=h"),
        ("git status", "git-status", "On branch main"),
    ]


def trace_store(folder: Path, calls: list[tuple[str, dict[str, Any], str]]) -> None:
    """A trace store laid out as CompyMac lays it out."""
    folder.mkdir()

    def store(content: str) -> str:
        digest = hashlib.sha256(content.encode()).hexdigest()
        file = folder / "artifacts" / digest[:2] / digest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return digest

    with sqlite3.connect(folder / "traces.db") as db:
        db.execute(
            "CREATE TABLE trace_events (event_id TEXT PRIMARY KEY, timestamp TEXT, "
            "event_type TEXT, trace_id TEXT, span_id TEXT, data TEXT)"
        )
        for number, (name, arguments, output) in enumerate(calls):
            start = {
                "kind": "tool_call",
                "attributes": {"tool_name": name, "call_id": str(number)},
                "input_artifact_hash": store(json.dumps(arguments)),
            }
            end = {"status": "ok", "output_artifact_hash": store(output)}
            for event, fields in (("span_start", start), ("span_end", end)):
                row = (f"{event}{number}", "t", event, "trace", f"span{number}", json.dumps(fields))
                db.execute("INSERT INTO trace_events VALUES (?, ?, ?, ?, ?, ?)", row)
    db.close()


def test_compymac_traces(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    trace_store(
        folder,
        [
            ("bash", {"command": "pytest -q"}, shell("pytest -q", PYTEST)),
            ("grep", {"pattern": "x"}, GREP),
        ],
    )
    assert [(one.tool, one.text) for one in read(folder).outputs] == EXPECTED
    assert read(folder / "traces.db") == read(folder)
    next((folder / "artifacts").glob(f"*/{hashlib.sha256(GREP.encode()).hexdigest()}")).unlink()
    with pytest.raises(TrajectoryError, match=r"traces\.db:4: artifact .* can't be read"):
        read(folder)
    assert len(read(folder, skip_damaged=True).outputs) == 1


@pytest.mark.parametrize(
    ("name", "text", "line", "what"),
    [
        ("a.jsonl", json.dumps(MESSAGES[3]) + '\n{"role": "to', 2, "not JSON"),
        ("a.jsonl", json.dumps(MESSAGES[3]) + "\n[1]\n", 2, "not a JSON object"),
        ("a.jsonl", json.dumps(MESSAGES[3]) + '\n\n{"role": 3}\n', 3, "neither a message"),
        ("a.json", '[\n{"role": "tool", "content": "x"},\n7]', 3, "not a JSON object"),
        ("a.json", '[\n{"role": "tool", "content": "x"},\n{"role": "tool"', 3, "not JSON"),
        ("a.json", '[\n{"role": "tool", "content": 5}]', 2, "content is not text"),
        ("a.json", '[{"role": "assistant", "tool_calls": [{"id": 1}]}]', 1, "without a name"),
        ("a.traj", '{"trajectory": [\n{"action": "ls"}]}', 2, "neither a message"),
        ("a.traj", '{"trajectory": [\n{"observation": "x"}\n', 2, "cut off"),
    ],
)
def test_damaged_records(tmp_path: Path, name: str, text: str, line: int, what: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(TrajectoryError, match=what) as refused:
        read(file)
    assert str(refused.value).startswith(f"{file}:{line}: ")
    kept = read(file, skip_damaged=True)
    assert len(kept.problems) == 1
    assert kept.problems[0].startswith(f"{file}:{line}: ")


def test_files_that_are_not_logs(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "x"}')
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    (tmp_path / "c.json").write_text("[" * 100_000)
    (tmp_path / "d.db").write_text("no database")
    for name in ("a.json", "b.json", "c.json", "d.db", "missing.json", "missing.db"):
        with pytest.raises(TrajectoryError, match=name):
            read(tmp_path / name)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_cut_is_read_or_reported(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    whole = json.dumps({"trajectory": STEPS}, indent=1)
    cut = data.draw(st.integers(0, len(whole) - 1))
    file = tmp_path_factory.mktemp("cut") / "run.traj"
    file.write_text(whole[:cut])
    try:
        read(file)
    except TrajectoryError as error:
        assert str(file) in str(error)


def test_secrets_are_masked_before_anything_else(tmp_path: Path) -> None:
    messages = [
        call("bash", {"command": f"export TOKEN={TOKEN}; env"}, "c1"),
        {"role": "tool", "tool_call_id": "c1", "content": f"TOKEN={TOKEN}\nPORT=8443\n"},
    ]
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(messages))
    (output,) = read(file).outputs
    assert output.secrets == 1
    assert TOKEN not in repr(output)
    out = tmp_path / "train.jsonl"
    assert write_records(make_records(make_documents([output]), "instruct"), out) == 1
    assert TOKEN not in out.read_text()
    assert "[masked: github token]" in out.read_text()
    assert json.loads(out.read_text())["answer"] == "8443"


@pytest.mark.parametrize("place", [".claude", ".codex", ".qwen"])
def test_the_sessions_that_agents_keep_are_logs_too(place: str) -> None:
    """Those of tests/agents, which the agents themselves have written."""
    folder = Path(__file__).parents[1] / "agents/data/sessions" / place
    file = min(folder.rglob("*.jsonl"), key=lambda each: len(each.parts))
    found = read(file)
    assert not found.problems
    assert [one for one in found.outputs if "test_load FAILED" in one.text]
    assert all(one.where.startswith(f"{file}:") for one in found.outputs)
    assert any("python3 -c" in (one.command or "") for one in found.outputs)
