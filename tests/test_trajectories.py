from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.config import ClaraConfig
from clara_mlx.errors import ClaraError
from clara_mlx.tokenizer import TextTokenizer
from clara_mlx.train import data
from clara_mlx.train.question_writer import QuestionWriter, QuestionWriterError
from clara_mlx.train.stages import STAGES
from clara_mlx.train.trajectories import ToolOutput, TrajectoryError, read
from clara_mlx.train.trajectory_examples import documents, pieces, records, write

TOKEN = "gh" + "p_" + "a1B2" * 9  # put together here, so that no scanner takes it for a leak

PYTEST = "FAILED tests/test_store.py::test_take - KeyError: 'bolt'\n1 failed, 3 passed in 0.62s\n"
GREP = "inventory/store.py:15:    def take(self, name, count):\nREADME.md:3:take one\n"


def sent(name: str, arguments: dict[str, Any], call: str) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"id": call, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


MESSAGES = [
    {"role": "system", "content": "You are an agent."},
    {"role": "user", "content": "Fix it."},
    sent("bash", {"command": "pytest -q"}, "c1"),
    {"role": "tool", "tool_call_id": "c1", "content": PYTEST},
    sent("grep", {"pattern": "take"}, "c2"),
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
        sent("bash", {"command": "pytest"}, "c1") | {"message_type": "action"},
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
        sent("git_status", {}, "z"),
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


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "x"}')
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    (tmp_path / "c.json").write_text("[" * 100_000)
    (tmp_path / "d.db").write_text("no database")
    for name in ("a.json", "b.json", "c.json", "d.db", "missing.json", "missing.db"):
        with pytest.raises(TrajectoryError, match=name):
            read(tmp_path / name)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_cut_is_told_or_read(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
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
        sent("bash", {"command": f"export TOKEN={TOKEN}; env"}, "c1"),
        {"role": "tool", "tool_call_id": "c1", "content": f"TOKEN={TOKEN}\nPORT=8443\n"},
    ]
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(messages))
    (output,) = read(file).outputs
    assert output.secrets == 1
    assert TOKEN not in repr(output)
    out = tmp_path / "train.jsonl"
    assert write(records(documents([output]), "instruct"), out) == 1
    assert TOKEN not in out.read_text()
    assert "[masked: github token]" in out.read_text()
    assert json.loads(out.read_text())["answer"] == "8443"


def output(text: str, tool: str | None) -> ToolOutput:
    return ToolOutput("log:1", None, text, tool, 0)


OUTPUTS = [
    output(PYTEST, "pytest"),
    output(PYTEST, "pytest"),
    output(GREP, "ripgrep"),
    output("PORT=8443\nHOST=stock.internal\n", "env"),
    output("nothing to ask", None),
]


def test_documents_are_distinct_and_hold_their_answers() -> None:
    made = documents(OUTPUTS)
    assert [document.tool for document in made] == ["pytest", "ripgrep", "env"]
    for document in made:
        assert len({question for question, _ in document.pairs}) == len(document.pairs)
        for question, answer in document.pairs:
            assert answer in document.text or question.startswith("How many matches")


def test_long_outputs_are_cut_at_lines() -> None:
    text = "".join(f"KEY_{number}={number * 7}\n" for number in range(200))
    made = documents([output(text, "env")], characters=120)
    assert all(len(document.text) <= 120 for document in made)
    assert sum(len(document.pairs) for document in made) == 200
    for document in made:
        for question, answer in document.pairs:
            key = question.removeprefix("What is the value of ").removesuffix("?")
            assert f"{key}={answer}" in document.text


@given(st.text(st.sampled_from("ab\n\r"), max_size=200), st.integers(1, 50))
def test_pieces_cover_the_text(text: str, characters: int) -> None:
    spans = list(pieces(text, characters))
    assert "".join(text[start:end] for start, end in spans) == text
    for start, end in spans:
        assert end - start <= characters or len(text[start:end].splitlines()) == 1


@pytest.mark.parametrize(
    ("stage", "candidates"), [("scp", 1), ("instruct", 1), ("end-to-end", 3), ("retrieval", 3)]
)
def test_the_trainer_reads_what_was_written(
    tmp_path: Path, golden: Path, stage: Any, candidates: int
) -> None:
    made = documents(OUTPUTS)
    file = tmp_path / "train.jsonl"
    count = write(records(made, stage, candidates), file)
    questions = sum(len(document.pairs) for document in made)
    assert count == (len(made) if stage == "scp" else questions)
    config = ClaraConfig(64, 16, 8, 64, base_vocab_size=643, window=100_000)
    tokenizer = TextTokenizer((golden / "tiny-base" / "tokenizer.json").read_text())
    dataset = data.read(
        [file],
        STAGES[stage],
        config,
        tokenizer,
        max_length=100_000,
        top_k=2,
        long_documents="chunk",
    )
    assert len(dataset.examples) == count
    for line in file.read_text().splitlines():
        record = json.loads(line)
        assert len(record["docs"]) == candidates
        if stage != "scp":
            (positive,) = record["pos_index"]
            text = record["docs"][positive]
            assert record["answer"] in text or record["question"].startswith("How many matches")


def test_candidates_are_reproducible_and_enough() -> None:
    made = documents(OUTPUTS)
    assert list(records(made, "retrieval", 2, seed=3)) == list(
        records(made, "retrieval", 2, seed=3)
    )
    with pytest.raises(ClaraError, match="4 candidates need 3 documents"):
        list(records(made, "retrieval", 4))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ClaraError, match="missing"):
        write([], tmp_path / "missing" / "train.jsonl")


Reply = Callable[[BaseHTTPRequestHandler, int, dict[str, Any]], None]


@contextmanager
def endpoint(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real HTTP server; ``reply`` answers its n-th request."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append({"path": self.path, "key": self.headers["authorization"], "body": body})
            reply(self, len(requests), body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
        finally:
            server.shutdown()
            thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: str, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body.encode())))
    handler.end_headers()
    handler.wfile.write(body.encode())


def said(content: str) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


PAIRS = [
    {"question": "Which item is missing?", "answer": "bolt"},
    {"question": "How many\npassed?", "answer": 3},
    {"question": "Invented?", "answer": "screw"},
    {"question": "A part of a word?", "answer": "bol"},
    {"question": "Twice?", "answer": "bolt"},
    {"question": "Twice?", "answer": "KeyError"},
    {"question": "", "answer": "bolt"},
    {"question": "Too long?", "answer": "x" * 99},
    {"question": "No answer?"},
]
KEPT = [("Which item is missing?", "bolt"), ("How many passed?", "3"), ("Twice?", "bolt")]


@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "See [1]. Here you are:\n{}\nBye."])
def test_only_verbatim_answers_are_kept(around: str) -> None:
    content = around.replace("{}", json.dumps(PAIRS))
    with (
        endpoint(lambda handler, *_: send(handler, 200, said(content))) as (url, requests),
        QuestionWriter(url, "m", api_key="k" * 5) as writer,
    ):
        assert writer.write(PYTEST) == KEPT
        assert (writer.kept, writer.refused) == (3, 6)
    (request,) = requests
    assert request["path"] == "/v1/chat/completions"
    assert request["key"] == "Bearer kkkkk"
    assert request["body"]["model"] == "m"
    assert PYTEST in request["body"]["messages"][-1]["content"]


@pytest.mark.parametrize("content", ["", "no list", "[1, 2", '[{"question": }]', "[" * 9_000])
def test_useless_replies_give_nothing(content: str) -> None:
    with (
        endpoint(lambda handler, *_: send(handler, 200, said(content))) as (url, _),
        QuestionWriter(url, "m") as writer,
    ):
        assert writer.write(PYTEST) == []


def test_busy_servers_are_asked_again() -> None:
    def reply(handler: BaseHTTPRequestHandler, number: int, _: dict[str, Any]) -> None:
        if number == 1:
            send(handler, 503, "busy", Retry_After="0")
        elif number == 2:
            handler.connection.close()  # mid-request
        else:
            send(handler, 200, said(json.dumps(PAIRS)))

    with endpoint(reply) as (url, requests), QuestionWriter(url, "m", pause=0.01) as writer:
        assert writer.write(PYTEST) == KEPT
        assert len(requests) == 3


def test_failures_are_told() -> None:
    with (
        endpoint(lambda handler, *_: send(handler, 500, "broken")) as (url, requests),
        QuestionWriter(url, "m", pause=0.01, retries=2) as writer,
    ):
        with pytest.raises(QuestionWriterError, match=r"HTTP 500: broken \(after 3 attempts\)"):
            writer.write(PYTEST)
        assert len(requests) == 3
    with (
        endpoint(lambda handler, *_: send(handler, 401, "no key")) as (url, requests),
        QuestionWriter(url, "m", pause=0.01) as writer,
    ):
        with pytest.raises(QuestionWriterError, match="HTTP 401: no key"):
            writer.write(PYTEST)
        assert len(requests) == 1
    with (
        endpoint(lambda handler, *_: send(handler, 200, "{}")) as (url, _),
        QuestionWriter(url, "m") as writer,
        pytest.raises(QuestionWriterError, match="not a chat completion"),
    ):
        writer.write(PYTEST)
    with (
        QuestionWriter(url, "m", pause=0.01, retries=1) as writer,  # the server is gone
        pytest.raises(QuestionWriterError, match="ConnectError"),
    ):
        writer.write(PYTEST)


def test_slow_servers_time_out() -> None:
    release = threading.Event()
    with (
        endpoint(lambda *_: release.wait(20) and None) as (url, _),
        QuestionWriter(url, "m", timeout=0.2, retries=0) as writer,
    ):
        try:
            with pytest.raises(QuestionWriterError, match="Timeout"):
                writer.write(PYTEST)
        finally:
            release.set()


def test_written_questions_join_those_of_the_rules() -> None:
    class Writer:
        def write(self, text: str) -> list[tuple[str, str]]:
            return [("Which test failed?", "KeyError"), ("Which item?", "bolt")]

    (document,) = documents([output(PYTEST, "pytest")], writer=Writer())
    pairs = dict(document.pairs)
    assert pairs["Which item?"] == "bolt"
    assert pairs["Which test failed?"] == "test_take"  # the rules' answer stays
