"""Small recorded material of our own, in the format of `bench/real.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import real
import real_questions
from real_methods import METHODS
from real_trajectories import Figures, question, read_runs, replay, text_of, tokens_of

from clara_mlx.context import Budget

ROOT = Path(__file__).parents[2]
STEPS = 24
WINDOW = 4_096

NEED = "quota exceeded for tenant 4711"


def call(number: int, command: str) -> dict[str, Any]:
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    return {
        "role": "assistant",
        "content": f"Step {number}.",
        "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that prints 30 lines at each step, and at its end needs what the second one printed."""
    made = tmp_path_factory.mktemp("recorded")
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": [{"type": "text", "text": "Find out why uploads fail."}]},
    ]
    for number in range(STEPS):
        rows = [f"{number:02}:{row:02} upload of part {row} finished" for row in range(30)]
        if number == 1:
            rows[17] = f"01:17 upload refused: {NEED}"
        messages.append(call(number, f"tail -n 30 upload-{number}.log"))
        messages.append(
            {"role": "tool", "tool_call_id": f"c{number}", "content": "\n".join(rows) + "\n"}
        )
    last = len(messages)
    messages.append(
        {"role": "assistant", "content": f"An upload was refused with {NEED}, as I saw."}
    )
    (made / "uploads.json").write_text(json.dumps(messages))
    needs = [
        {"i": last, "lit": NEED, "where": 5, "kind": "line", "cls": "strict"},
        {"i": last, "lit": "upload-23.log", "where": last - 2, "kind": "path", "cls": "own"},
        {"i": 4, "lit": "Find out", "where": 1, "kind": "line", "cls": "own"},
    ]
    (made / "needs.json").write_text(json.dumps({"uploads": needs}))
    rows = [
        {
            "kind": "uploads",
            "source": "made for this test",
            "command": None,
            "text": text_of(messages[5]),
            "questions": [
                {"question": "Why was the upload refused?", "answer": NEED, "evidence": NEED},
                {"question": "Who refused the upload?", "answer": "nobody", "evidence": "nobody"},
            ],
        }
    ]
    (made / "outputs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return made


def figures(folder: Path, method: str, path: Path) -> dict[str, Any]:
    found = Figures()
    for run in read_runs(folder, []):
        made = METHODS[method](Budget(WINDOW, WINDOW // 8), path / "memory.db", None)
        replay(run, made, found)
        made.close()
    return found.summary()


def test_what_each_method_keeps(folder: Path, tmp_path: Path) -> None:
    kept = {
        name: figures(folder, name, tmp_path / name)
        for name in ("everything", "truncation", "masking", "ours")
        if (tmp_path / name).mkdir() is None
    }
    for each in kept.values():
        assert each["needs"] == 3 and each["requests"] == STEPS + 1 and not each["errors"]
        assert each["by_class"]["own"]["present"] == 100.0
        assert 0 <= each["ms_p50"] <= each["ms_p95"]
    assert [kept["everything"][what] for what in ("sent", "prefill", "present")] == [100.0] * 3
    strict = {name: each["by_class"]["strict"] for name, each in kept.items()}
    assert strict["truncation"] == {"n": 1, "present": 0.0, "asked": 0.0, "one_call_away": 0.0}
    assert strict["ours"]["one_call_away"] == 100.0
    assert kept["ours"]["sent"] < kept["everything"]["sent"]
    assert kept["truncation"]["prefill"] > 150  # each step drops another one


def test_tokens_and_questions() -> None:
    message = call(1, "ls\n-l")
    assert text_of(message) == "Step 1.\nls\n-l"
    assert tokens_of([message, message]) == 2 * (8 + 13 // 4)
    wordy = {"content": f"I know that it was {NEED} here"}
    assert question(wordy, ["it was", NEED]) == "I know that here"
    assert question(message, []) == "bash ls -l"
    assert question({"content": NEED}, [NEED]) == "?"


def test_outputs(folder: Path, tmp_path: Path) -> None:
    rows = real_questions.read_outputs(folder / "outputs.jsonl")
    found = real_questions.measure(
        rows, tmp_path / "m.db", lambda tool, text: text[:40], lambda what: None
    )
    assert found["questions"] == 2 and found["outputs"] == 1
    for name in ("recall1", "recall3"):
        assert found[name] == 50.0 == found["by_kind"]["uploads"][name]
    for name in ("ask", "inside"):  # what the block shows need not be said again
        assert max(found[name], found["block"]) == 50.0
    assert found["summary"] == 0.0
    assert {one["question"] for one in found["missed"]} >= {"Who refused the upload?"}


def test_the_command(folder: Path, tmp_path: Path) -> None:
    """It prints tables, and writes the figures with the machine, and a plot."""
    output = tmp_path / "real.json"
    command = [sys.executable, str(ROOT / "bench" / "real.py")]
    command += ["--trajectories", str(folder), "--outputs", str(folder / "outputs.jsonl")]
    command += ["--window", "4096", "8192", "--only", "uploads", "--output", str(output)]
    command += ["--methods", "truncation", "compymac", "ours", "--compymac", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| ours |" in done.stdout and "2 questions about 1 outputs" in done.stdout
    assert "CompyMac is left out" in done.stderr and "8192, ours: uploads" in done.stderr
    results = json.loads(output.read_text())
    assert set(results["trajectories"]) == {"4096", "8192"}
    assert set(results["trajectories"]["8192"]) == {"truncation", "ours"}
    assert results["machine"]["python"] and results["clara-mlx"]
    assert output.with_suffix(".png").stat().st_size > 1_000
    assert "| ours |" in real.table(results)


def test_compressors_are_put_to_the_same_questions(folder: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (folder / "outputs.jsonl").read_text().splitlines()]
    rows[0]["questions"].pop()  # the one whose answer stands nowhere
    outputs = tmp_path / "outputs.jsonl"
    outputs.write_text(json.dumps(rows[0]))
    command = [sys.executable, str(ROOT / "bench" / "real.py"), "--outputs", str(outputs)]
    command += ["--compressor", "bm25", "--output", str(tmp_path / "real.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "| bm25, asked | 1/4 of the tokens | " in done.stdout
    results = json.loads((tmp_path / "real.json").read_text())
    assert results["compressors"]["compressors"][0]["name"] == "bm25"
    assert (tmp_path / "real.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("name", "content"), [("needs.json", "[1]"), ("needs.json", "{"), ("uploads.json", "{")]
)
def test_a_damaged_folder_is_named(folder: Path, tmp_path: Path, name: str, content: str) -> None:
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(SystemExit, match=name):
        list(read_runs(tmp_path, []))
    with pytest.raises(SystemExit, match="nothing"):
        list(read_runs(folder, ["nothing"]))
