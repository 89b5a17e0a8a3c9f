"""The memory's commands: what comes in goes out byte for byte, for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trajectories import trajectory

from clara_mlx.context import Budget, Context
from clara_mlx.memory import Memory

Run = Callable[..., Any]

TEXTS = [
    b"1 failed, 2 passed\n",
    b"",
    b"\xff\x00\xfe not UTF-8 \xed\xa0\x80\n",
    "tabs\tcolours \x1b[31mred\x1b[0m, bells \x07, an emoji name :bug:, \U0001f41e\r\n".encode(),
]


@pytest.fixture
def run(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with a memory of its own, in a folder that belongs to no repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLARA_MLX_MEMORY", str(tmp_path / "agent.db"))
    monkeypatch.delenv("CLARA_MLX_MODEL", raising=False)
    return cli


@pytest.fixture
def model(folder: Callable[..., Path]) -> Path:
    return folder("c16", "e2e")


def read(run: Run, *arguments: object, **options: Any) -> Any:
    """What a command prints with --json."""
    return json.loads(run(*arguments, "--json", **options).stdout)


@pytest.mark.parametrize("text", TEXTS)
def test_a_pipe_comes_back_byte_for_byte(run: Run, text: bytes) -> None:
    handle = run("remember", "-s", "pytest", "--allow-empty", input=text).stdout.strip()
    assert run("original", handle).stdout_bytes == text
    (stored,) = [json.loads(line) for line in run("export").stdout.splitlines()]
    assert stored == read(run, "original", handle)
    assert stored["source"] == "pytest"


def test_files_come_back_with_their_paths(run: Run, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.log" for number in range(len(TEXTS))]
    for file, text in zip(files, TEXTS, strict=True):
        file.write_bytes(text)
    handles = read(run, "remember", *files, files[0], "-m", "path=given", "-m", "n=1")
    assert list(handles) == [str(file) for file in files]
    for file, text in zip(files, TEXTS, strict=True):
        assert run("original", handles[str(file)]).stdout_bytes == text
        assert read(run, "original", handles[str(file)])["metadata"] == {"path": "given", "n": 1}
    (handle,) = read(run, "remember", files[0]).values()
    assert read(run, "original", handle)["metadata"] == {"path": str(files[0])}


def test_handles_can_be_put_into_a_variable(run: Run, tmp_path: Path) -> None:
    """A file and a pipe print the same: the handle, which alone names the memory."""
    files = [tmp_path / name for name in ("a.log", "b.log")]
    for file in files:
        file.write_text(f"the content of {file.name}\n")
    (by_file,) = run("remember", files[0]).stdout.splitlines()
    (by_pipe,) = run("remember", input="what was piped\n").stdout.splitlines()
    assert run("original", by_file).stdout == "the content of a.log\n"
    assert run("original", by_pipe).stdout == "what was piped\n"
    several = run("remember", *files).stdout.splitlines()
    assert [run("original", handle).stdout for handle in several] == [
        "the content of a.log\n",
        "the content of b.log\n",
    ]


def test_an_empty_pipe_does_not_look_like_success(run: Run) -> None:
    """What failed before it wrote anything; with --tee, silence is what many commands say."""
    failed = run("remember", input="", ok=False)
    assert failed.exit_code == 1 and "nothing was remembered" in failed.stderr
    passed_on = run("remember", "--tee", input="")
    assert passed_on.stdout == "" and "nothing was remembered" in passed_on.stderr
    assert run("-q", "remember", "--tee", input="").stderr == ""
    assert read(run, "remember", "--allow-empty", input="")["-"].startswith("m-")
    assert read(run, "status")["memories"] == 1


def test_nothing_is_remembered_if_a_file_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    for wrong in ("missing", "."):
        failed = run("remember", tmp_path / "there", tmp_path / wrong, ok=False)
        assert failed.exit_code == 1
        assert "nothing was remembered" in failed.stderr
    assert not (tmp_path / "agent.db").exists()


def test_tee_passes_the_input_on(run: Run) -> None:
    result = run("remember", "--tee", input=TEXTS[2])
    assert result.stdout_bytes == TEXTS[2]
    assert run("original", result.stderr.strip()).stdout_bytes == TEXTS[2]
    result = run("remember", "--tee", "--json", input=b"x\n")
    assert (result.stdout, list(json.loads(result.stderr))) == ("x\n", ["-"])


def test_metadata_is_json_only_where_nothing_is_lost(run: Run) -> None:
    given = {
        "n": ("3", 3),
        "x": ("1.5", 1.5),
        "commit": ("12345e6", "12345e6"),
        "zeros": ("007", "007"),
        "big": ("9" * 30, "9" * 30),
        "nan": ("NaN", "NaN"),
        "flag": ("true", True),
        "none": ("null", None),
        "quoted": ('"3"', "3"),
        "tags": ('["a", "b"]', ["a", "b"]),
        "equals": ("a=b", "a=b"),
        "empty": ("", ""),
    }
    pairs = [part for key, (text, _) in given.items() for part in ("-m", f"{key}={text}")]
    handle = run("remember", *pairs, input="some words").stdout.strip()
    metadata = read(run, "original", handle)["metadata"]
    assert metadata == {key: value for key, (_, value) in given.items()}
    assert isinstance(metadata["flag"], bool)
    for key in given.keys() - {"tags"}:
        found = read(run, "recall", "words", "-m", f"{key}={given[key][0]}")
        assert [hit["handle"] for hit in found] == [handle], key
    assert not read(run, "recall", "words", "-m", "n=4")
    for wrong in ("no-equals", "=value", "source=x", "after=3"):
        assert run("remember", "-m", wrong, input="x", ok=False).exit_code == 2


def test_recall_by_text(run: Run) -> None:
    log = "collected 2 items\n" * 100 + "FAILED tests/test_io.py::test_load - OSError\n"
    handle = run("remember", "-s", "pytest", "--session", "s1", input=log).stdout.strip()
    run("remember", "-s", "make", input="test_load.o: undefined reference\n")
    first, *_ = hits = read(run, "recall", "tests/test_io.py::test_load", "-k", "2")
    assert len(hits) == 2
    assert (first["handle"], first["found_by"]) == (handle, ["text"])
    assert first["text"] == log[first["start"] : first["end"]]
    assert log.splitlines()[first["line"] - 1] in first["text"]
    for options in (
        ("-s", "pytest"),
        ("--session", "s1"),
        ("--after", "2020-01-01", "-s", "pytest"),
    ):
        assert {hit["handle"] for hit in read(run, "recall", "test_load", *options)} == {handle}
    assert read(run, "recall", "test_load", "--before", "2020-01-01") == []
    shown = run("recall", "test_load").stdout
    assert "\n> FAILED tests/test_io.py::test_load - OSError\n" in shown
    assert "\n  collected 2 items\n" in shown
    assert first["matched_line"] == 101 and first["matched"] == log.splitlines()[100]
    assert 0.5 < first["score"] < 1  # not the 0 of a word that many have, or that is alone
    assert "nothing found" in run("recall", "unheard-of").stdout


def test_what_is_shown_cannot_act_on_the_terminal(run: Run) -> None:
    run("remember", input=b"needle \x1b[31mred\x1b[0m \x1b]0;title\x07 :bug: [bold]x \xff\r\n")
    shown = run("recall", "needle").stdout
    assert "needle red ␛]0;title␇ :bug: [bold]x \ufffd" in shown
    assert not any(character in shown for character in "\x1b\x07\r")
    (hit,) = read(run, "recall", "needle")  # programs get it as it is
    assert hit["text"].endswith("\x07 :bug: [bold]x \udcff\r\n")


def test_flush_and_ask_with_a_model(run: Run, model: Path) -> None:
    log = "".join(f"test_{number} passed in {number} ms\n" for number in range(60))
    handle = run("remember", input=log).stdout.strip()
    assert read(run, "status")["compressed"] == 0
    done = read(run, "flush", "--model", model)
    assert 0 < done["compressed"] == done["chunks"]
    assert (done["pending"], done["failed"]) == (0, 0)
    assert {"compressed": done["compressed"], "fingerprint": done["fingerprint"]}.items() <= read(
        run, "status"
    ).items()
    hits = read(run, "recall", "test_7", "--model", model, "--mode", "latent", "-k", "3", "--exact")
    assert [hit["found_by"] for hit in hits] == [["latent"]] * 3
    answer = read(run, "ask", "which passed?", "--model", model, "--max-tokens", "4", "-k", "2")
    for hit in answer["evidence"]:
        assert (hit["handle"], hit["text"]) == (handle, log[hit["start"] : hit["end"]])
    shown = run("ask", "which passed?", "--model", model, "--max-tokens", "4", "-k", "2").stdout
    assert shown.strip()
    for hit in answer["evidence"]:
        assert hit["text"].strip() in shown
    empty = run("ask", " ", "--model", model, ok=False)
    assert empty.exit_code == 1 and "the question is empty" in empty.stderr
    none = run("ask", "which passed?", "--model", model, "-s", "other").stdout
    assert "Nothing relevant" in none


def test_another_model_takes_over(run: Run, model: Path, folder: Callable[..., Path]) -> None:
    run("remember", input="some output\n")
    first = read(run, "flush", "--model", model)["fingerprint"]
    other = folder("c4", "e2e")
    for command in (("flush",), ("ask", "what?")):
        failed = run(*command, "--model", other, ok=False)
        assert failed.exit_code == 1
        assert "clara-mlx recompress" in failed.stderr
    assert read(run, "status")["fingerprint"] == first
    done = read(run, "recompress", "--model", other)
    assert done["fingerprint"] != first
    assert done["compressed"] == done["chunks"] > 0
    assert read(run, "verify")["problems"] == []


def test_export_and_import(run: Run, tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS):
        options = ("-s", f"s{number % 2}", "-m", f"n={number}", "--allow-empty")
        run("remember", *options, input=text)
    file = tmp_path / "memory.jsonl"
    assert read(run, "export", "--to", file) == {"memories": 4, "file": str(file), "damaged": []}
    assert file.stat().st_mode & 0o777 == 0o600
    exported = file.read_text()
    assert run("export").stdout == exported
    assert run("export", "-s", "s1", "-m", "n=3").stdout == exported.splitlines(True)[3]
    to = ("--db", tmp_path / "new.db")
    assert read(run, "import", file, *to) == {"new": 4}
    assert read(run, "import", *to, input=exported) == {"new": 0}
    assert run("export", *to).stdout == exported
    damaged = exported.replace("1 failed", "0 failed")
    failed = run("import", "--db", tmp_path / "third.db", input=damaged, ok=False)
    assert failed.exit_code == 1
    assert "line 1" in failed.stderr
    for wrong in (tmp_path, tmp_path / "no" / "folder"):
        assert run("export", "--to", wrong, ok=False).exit_code == 1
        assert run("import", wrong, *to, ok=False).exit_code == 1
    assert not list(tmp_path.glob(".*partial*"))


def test_forget_asks_first(run: Run) -> None:
    first, second, third = (
        run("remember", "-s", source, "-m", f"n={n}", input=f"needle {n}\n").stdout.strip()
        for n, source in enumerate(("a", "a", "b"))
    )
    assert run("forget", ok=False).exit_code == 1
    assert run("forget", "--yes", ok=False).exit_code == 1
    for answer in ("n\n", ""):
        assert run("forget", first, input=answer, ok=False).exit_code == 1
    assert read(run, "status")["memories"] == 3
    failed = run("forget", first, "m-0", "--yes", ok=False)
    assert "nothing was forgotten" in failed.stderr
    assert "memories forgotten: 1" in run("forget", first, input="y\n").stdout
    assert read(run, "forget", "-s", "a", "-m", "n=7", "--yes") == {"forgotten": 0}
    assert read(run, "forget", "-s", "a", "-m", "n=1", "--yes") == {"forgotten": 1}
    assert [hit["handle"] for hit in read(run, "recall", "needle")] == [third]
    assert run("original", second, ok=False).exit_code == 1
    assert read(run, "forget", "--after", "2020-01-01", "--yes") == {"forgotten": 1}


def test_a_compaction_is_undone(run: Run, tmp_path: Path) -> None:
    messages = [message for added in trajectory(12, 40) for message in added]
    with Memory.open(tmp_path / "agent.db") as memory:
        context = Context(memory, budget=Budget(window=5_000, reserve=500))
        assert context.prepare(messages, session="s").messages != messages
        assert "no longer sent" in run("undo", "s").stdout
        assert context.prepare(messages, session="s", budget=Budget()).messages == messages
    assert read(run, "undo", "s") == {"undone": 0}
    assert "nothing of a conversation named 'other'" in run("undo", "other", ok=False).stderr


def test_care(run: Run, model: Path, tmp_path: Path) -> None:
    run("remember", input="some output\n" * 50)
    run("flush", "--model", model)
    assert "all is well" in run("verify").stdout
    for name in ("vacuum", "compact"):  # the old name still works
        sizes = read(run, name)
        assert sizes["bytes_after"] <= sizes["bytes_before"]
    from clara_mlx.store.store import Store

    store = Store(tmp_path / "agent.db")
    with store.write() as connection:
        connection.execute("UPDATE latents SET data = zeroblob(length(data)) WHERE id = 1")
    store.close()
    failed = run("verify", "--json", ok=False)
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["damaged_chunks"]
    repaired = read(run, "verify", "--repair")
    assert (repaired["problems"], repaired["repaired"]) == ([], 1)
    run("flush", "--model", model)
    assert read(run, "verify")["checked"]["latents"] == read(run, "status")["chunks"]


def test_errors_are_one_message(run: Run, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("no database, " * 1000)
    missing = ("--db", tmp_path / "missing.db")
    commands = (
        *((name, *missing) for name in ("status", "verify", "vacuum", "compact", "export")),
        ("original", "m-0", *missing),
        ("recall", "x", *missing),
        ("forget", "m-0", "--yes", *missing),
        ("remember", "--db", text),
        ("status", "--db", text),
        ("status", "--db", tmp_path),
    )
    for command in commands:
        failed = run(*command, input="x", ok=False)
        assert failed.exit_code == 1, command
        assert failed.stderr.startswith("clara-mlx: "), command
        assert not failed.stdout
    assert not (tmp_path / "missing.db").exists()
    run("remember", input="x")
    for command in (
        ("ask", "x"),
        ("flush",),
        ("recompress",),
        ("recall", "x", "--mode", "latent"),
        ("recall", "x", "--source", "\udcff"),
        ("recall", "x", "--meta", 'a={"not": "comparable"}'),
        ("remember", "--source", "\udcff"),
        ("recall", "x", "--model", tmp_path),
        ("original", "m-0"),
    ):
        failed = run(*command, input="x", ok=False)
        assert failed.exit_code == 1, command
        assert failed.stderr.startswith("clara-mlx: "), command


# -- real processes ------------------------------------------------------------------------------


PIPES = """
c() { "$PYTHON" -m clara_mlx.cli "$@"; }
handle=$(head -c 3000000 /dev/urandom | tee bytes | c remember)
c original "$handle" | cmp - bytes
c original "$handle" | head -c 1 >/dev/null
c export | head -c 1 >/dev/null
yes | head -n 300000 | c remember --tee 2>handle | head -n 1
c original "$(cat handle)" | wc -l
"""


def test_pipes_that_break_are_quiet(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", PIPES],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CLARA_MLX_MEMORY": str(tmp_path / "agent.db"),
        },
        capture_output=True,
        check=True,
    )
    # A busy machine is told how far it has come.
    said = [line for line in done.stderr.splitlines() if not line.startswith(b"remembering ")]
    assert said == []
    assert done.stdout.split() == [b"y", b"300000"]


def test_remembering_loads_no_model_code(tmp_path: Path) -> None:
    script = (
        "import sys; from clara_mlx.cli.app import app; "
        "app(['remember', '-s', 'build'], standalone_mode=False); "
        "print(*{'mlx', 'mlx_lm', 'transformers', 'rich', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=b"output\n",
        env={**os.environ, "CLARA_MLX_MEMORY": str(tmp_path / "agent.db")},
        capture_output=True,
        check=True,
    )
    handle, loaded = done.stdout.decode().split("\n")[:2]
    assert handle.startswith("m-")
    assert loaded == ""


def test_of_a_damaged_memory_the_rest_is_exported(run: Run, tmp_path: Path) -> None:
    handles = [run("remember", input=f"text {number}\n").stdout.strip() for number in range(3)]
    with Memory.open(tmp_path / "agent.db") as memory, memory.file.write() as connection:
        connection.execute("UPDATE contents SET data = x'00' WHERE id = 2")
    to = tmp_path / "export.jsonl"
    result = run("export", "--to", to, "--json", ok=False)
    assert result.exit_code == 1
    assert [json.loads(line)["handle"] for line in to.read_text().splitlines()] == [
        handles[0],
        handles[2],
    ]
    figures = json.loads(result.stdout)
    assert figures["memories"] == 2 and handles[1] in figures["damaged"][0]
    assert "could not be exported: 1; all others, 2, were" in result.stderr
    printed = run("export", ok=False)
    assert (printed.exit_code, printed.stdout) == (1, to.read_text())
    assert handles[1] in printed.stderr
    checked = run("verify", ok=False)
    assert checked.exit_code == 1 and "`clara-mlx export` can save: 2" in checked.stdout
