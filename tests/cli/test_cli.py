"""The command line: help that teaches, errors of one message, JSON for programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import clara_mlx
from clara_mlx.cli import output
from clara_mlx.cli.app import PANELS, app
from clara_mlx.cli.notes import set_verbosity
from clara_mlx.memory import Memory, settings

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
ROOT = Path(__file__).parents[2]

#: Options of each command, which scripts rely on: none may go.
OPTIONS = json.loads((Path(__file__).parent / "options.json").read_text())


@pytest.mark.parametrize("name", [name for name in COMMANDS if not COMMANDS[name].hidden])
def test_every_command_teaches_and_is_in_the_manual(cli: Any, name: str) -> None:
    command = COMMANDS[name]
    text = re.sub(r"\x1b\[[0-9;]*m", "", cli(name, "--help").output)
    assert f"clara-mlx {name}" in (command.help or "")  # an example
    for parameter in command.params:
        assert parameter.help, f"{name}: {parameter.name} has no help"
    assert "Usage" in text
    assert f"clara-mlx {name}" in (ROOT / "docs" / "COMMANDS.md").read_text()
    if name not in ("serve", "mcp", "ui"):  # they run, and print no result
        assert any("--json" in p.opts for p in command.params)


def test_version_and_no_arguments(cli: Any) -> None:
    assert cli("--version").output == f"clara-mlx {clara_mlx.__version__}\n"
    assert "Usage" in cli(ok=False).output


def test_flags_are_shown_as_they_are_typed(cli: Any) -> None:
    shown = "".join(cli(name, "--help").output for name in ("recall", "forget")) + cli("-h").output
    assert "--json" in shown and "--version" in shown and "<bool>" not in shown
    assert "<str>" in shown  # of an option that takes a value


def test_help_is_in_panels(cli: Any) -> None:
    shown = cli("--help").output
    places = [shown.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        (("recall", "x", "--db", "nowhere.db"), 1, "ClaraError"),
        (("plan", "--kv-bits", 5), 2, "BadParameter"),
        (("recall", "x", "--nonsense"), 2, "NoSuchOption"),
    ],
)
def test_errors_are_json_for_programs(
    cli: Any, words: tuple[object, ...], status: int, kind: str
) -> None:
    plain = cli(*words, ok=False)
    assert plain.exit_code == status and not plain.stdout and plain.stderr
    result = cli(*words, "--json", ok=False)
    assert result.exit_code == status and result.stderr == plain.stderr
    error = json.loads(result.stdout)["error"]
    assert error["type"] == kind and error["message"]


def test_names_of_commands_and_options_stay() -> None:
    found = {name: sorted(o for p in c.params for o in p.opts) for name, c in COMMANDS.items()}
    assert found == OPTIONS
    assert COMMANDS["compact"].hidden and "clara-mlx vacuum" in COMMANDS["compact"].help


HEAVY = (
    "mlx",
    "mlx_lm",
    "numpy",
    "pysqlite3",
    "sqlite3",
    "starlette",
    "tokenizers",
    "transformers",
)


def test_each_command_is_in_the_module_that_the_panels_say() -> None:
    for modules in PANELS.values():
        for module, names in modules.items():
            commands = import_module(f"clara_mlx.cli.{module}").commands
            own = [one.name or one.callback.__name__ for one in commands.registered_commands]
            assert own == [*names]


def test_a_command_imports_what_it_needs(tmp_path: Path) -> None:
    """Neither the other commands nor, to search by words, numpy: each is a tenth of a second."""
    unneeded = ["clara_mlx.cli.care", *(one for one in HEAVY if "sqlite3" not in one)]
    file, memory = tmp_path / "log.txt", tmp_path / "memory.db"
    file.write_text("FAILED tests/test_io.py::test_load")
    script = (
        "import sys; from clara_mlx.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code\n"
        f"print(*set(sys.modules).intersection({unneeded}), file=sys.stderr)"
    )
    for words in (["remember", file], ["recall", "FAILED", "--mode", "text"], ["recall", "load"]):
        command = [sys.executable, "-c", script, *words, "--db", memory]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr.endswith("\n\n") or done.stderr == "\n", (words, done.stderr)
        assert done.stdout


@pytest.mark.alone
def test_help_answers_at_once() -> None:
    """It takes 0.2 s of one core; the heavy imports are each as much again or more."""
    script = (
        "import sys, time; from clara_mlx.cli.app import app;"
        "app(['--help'], standalone_mode=False);"
        f"print(time.process_time(), *set(sys.modules).intersection({HEAVY}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    seconds, *loaded = done.stderr.split()
    assert not loaded
    assert float(seconds) < 1.0  # a busy machine may be slow


def test_an_error_is_one_message_and_exit_code_1(cli: Any, tmp_path: Path) -> None:
    for arguments in (
        ("inspect", tmp_path),
        ("compress", tmp_path, "no such file"),
        ("bench", tmp_path),
        ("convert", tmp_path, "--to", tmp_path / "to"),
    ):
        result = cli(*arguments, ok=False)
        assert result.exit_code == 1
        assert result.stderr.startswith("clara-mlx: ")
        assert "Traceback" not in result.output
        assert not result.stdout


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("recall", "--mode"),
        ("convert", "--quantise"),
        ("convert", "--q-mode"),
        ("convert", "--recipe"),
        ("convert", "--dtype"),
        ("plan", "--kv-bits"),
        ("serve", "--tools"),
        ("serve", "--reasoner-api"),
        ("serve", "--fallback-api"),
        ("serve", "--reasoner-cache"),
        ("examples", "--stage"),
    ],
)
def test_choices_are_shown_completed_and_checked(cli: Any, command: str, option: str) -> None:
    (parameter,) = [p for p in COMMANDS[command].params if option in p.opts]
    choices = [item.value for item in parameter.shell_complete(Any, "")]
    assert len(choices) > 2
    assert [one.value for one in parameter.shell_complete(Any, choices[0])] == choices[:1]
    assert f"<{choices[0]}|" in cli(command, "--help").output
    refused = cli(command, "x", option, "unheard-of", ok=False)
    assert refused.exit_code == 2 and all(f"'{one}'" in refused.stderr for one in choices)


def test_defaults_of_choices_are_those_of_the_settings() -> None:
    defaults = {p.name: p.default for p in COMMANDS["serve"].params}
    assert defaults["reasoner_api"] == settings.REASONER_API.default
    assert defaults["fallback_api"] == settings.FALLBACK_API.default
    assert defaults["reasoner_cache"] == settings.REASONER_CACHE.default


def test_a_log_if_it_is_wanted_and_silence_if_that_is(tmp_path: Path) -> None:
    """`-v` before a command logs what the library does, `-q` leaves out notes."""
    with Memory.open(tmp_path / "m.db") as memory:
        memory.remember("1 failed")

    def errors(*words: str) -> str:
        command = [sys.executable, "-m", "clara_mlx.cli", *words, "--db", str(tmp_path / "m.db")]
        environment = {k: v for k, v in os.environ.items() if k != "CLARA_MLX_MODEL"}
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
        )
        assert "1 failed" in done.stdout
        return done.stderr

    plain = errors("recall", "failed")
    assert plain.count("\n") == 1 and "by words only" in plain
    assert not errors("-q", "recall", "failed")
    logged = errors("-v", "recall", "failed")
    assert "DEBUG clara_mlx.store.file" in logged and "searched in" in logged
    assert "1 failed" not in logged and "'failed'" not in logged  # what is remembered is private


def test_an_old_name_after_an_option_of_all_commands(cli: Any) -> None:
    words = ("-q", "plan", "--memory", 64, "--reasoner", "Qwen3-32B", "--clara", "none", "--json")
    assert json.loads(cli(*words).stdout)["reasoner"]["name"] == "Qwen3-32B"
    assert cli("-v", "-q", "status", ok=False).exit_code == 2


def test_progress_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of work that is short, and then a line every few seconds."""
    set_verbosity(quiet=False, verbose=False)
    monkeypatch.setattr(output, "PROGRESS_SECONDS", 1000.0)
    with output.progress_bar("compressing") as progress:
        progress(1, 3)
        monkeypatch.setattr(output, "PROGRESS_SECONDS", 0.0)
        progress(2, 3, "\x1b[2Jtexts")
    with output.progress_bar("converting", in_bytes=True) as progress:
        progress(2_000_000, 15_300_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "compressing \u241b[2Jtexts: 2 of 3",
        "converting: 2 of 15,300 MB",
    ]


def test_scripts_and_examples_are_json_if_that_is_asked_for(cli: Any) -> None:
    assert 'stage = "' in json.loads(cli("train", "--example", "--json").stdout)["example"]
    words = ("plan", "--memory", 64, "--reasoner", "Qwen3-32B", "--bits", 4, "--script")
    assert json.loads(cli(*words, "--json").stdout)["script"] == cli(*words).stdout


def test_train_without_a_file_says_how_to_get_one(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = cli("train", ok=False)
    assert failed.exit_code == 1 and "clara-mlx train --example > train.toml" in failed.stderr


def test_wrong_options_exit_with_2(cli: Any, folder: Any, tmp_path: Path) -> None:
    assert cli("convert", tmp_path, "--to", "x", "-q", "7", ok=False).exit_code == 2
    assert cli("bench", folder("c16", "e2e"), "--lengths", "a", ok=False).exit_code == 2
    assert cli("convert", tmp_path, "--to", "x", "--group-size", "48", ok=False).exit_code == 1
    assert cli("unheard-of", ok=False).exit_code == 2


def test_convert_prints_its_closing_table(cli: Any, golden: Path, tmp_path: Path) -> None:
    source = ("convert", golden / "c16/instruct", "--base", golden / "tiny-base")
    result = cli(*source, "--to", tmp_path / "a", "-q", "8", "--verify")
    for part in ("adapter decoder", "bits per weight", "licence", "q_proj", "cosine", "down_proj"):
        assert part in result.stdout
    assert "note: this checkpoint has no query reasoner" in result.stderr
    report = json.loads(cli(*source, "--to", tmp_path / "b", "--json", "--verify").stdout)
    assert report["adapters"] == ["decoder", "encoder"]
    assert report["errors"]["q_proj"]["rms"] < 0.02
    assert report["verification"]["problems"] == []
    assert 8.5 < report["bits_per_weight"] < 16
    assert report["bytes"]["base"] == sum(
        f.stat().st_size - header_bytes(f) for f in (tmp_path / "b").glob("model*.safetensors")
    )


def header_bytes(file: Path) -> int:
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")


def test_inspect(cli: Any, folder: Any, golden: Path) -> None:
    to = folder("c16", "e2e", "-q", "8")
    assert json.loads(cli("inspect", to, "--json").stdout)["kind"] == "model folder"
    assert "query_reasoner_adapter" in cli("inspect", golden / "c4/e2e").stdout
    verified = cli("inspect", to, "--verify", "--checkpoint", golden / "c16/e2e")
    assert "the folder agrees with its source" in verified.stdout
    other = cli("inspect", to, "--verify", "--checkpoint", golden / "c16/instruct", ok=False)
    assert other.exit_code == 1
    assert "differs:" in other.stdout


def test_compress(cli: Any, folder: Any, tmp_path: Path) -> None:
    (tmp_path / "long").write_text("a line of words\n" * 200)
    (tmp_path / "bytes").write_bytes(b"\xff\x00\xfe not text")
    (tmp_path / "empty").write_text("")
    files = [tmp_path / name for name in ("long", "bytes", "empty")]
    figures = json.loads(cli("compress", "--model", folder("c16", "e2e"), *files, "--json").stdout)
    long, raw, empty = (figures[str(file)] for file in files)
    assert long["chunks"] > 5
    assert long["memory_tokens"] == 4 * long["chunks"]
    assert raw["characters"] == 12
    assert empty == {"characters": 0, "chunks": 0, "source_tokens": 0} | dict(
        memory_tokens=0, ratio=0.0
    )
    piped = cli("compress", "--model", folder("c16", "e2e"), input="some output\n")
    assert "ratio" in piped.stdout


def test_a_pipe_into_a_process(folder: Any) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "clara_mlx.cli",
            "compress",
            "--model",
            str(folder("c16", "e2e")),
            "--json",
        ],
        input=b"1 failed, 2 passed\n",
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["-"]["chunks"] == 1
    assert done.stderr == b""


def test_bench(cli: Any, folder: Any, tmp_path: Path) -> None:
    """What is printed and written; tests/speed has what is measured."""
    some = ("--only", "compress, query", "--batches", "2,1", "--repeats", 1)
    models = (folder("c16", "e2e", "-q", "8"), folder("c16", "e2e"))
    result = json.loads(cli("bench", *models, *some, "--lengths", "16,999", "--json").stdout)
    assert [(row["batch"], row["runs"]) for row in result["compress"]] == [(1, 1), (2, 1)]
    assert [other["quantization"] for other in result["others"]] == [None]
    assert result["left_out_lengths"] == [999] and result["load"] is None
    words = [verdict["word"] for verdict in result["verdicts"]]
    assert len(words) == 6 and words[0] == "yes"  # a tiny model loads in 8 GB
    to = tmp_path / "report"
    shown = cli("bench", models[1], *some, "--lengths", "16,999", "--to", to).stdout
    assert sorted(file.name for file in to.iterdir()) == ["bench.html", "bench.json", "bench.md"]
    written = json.loads((to / "bench.json").read_text())
    assert all(verdict["question"] in shown for verdict in written["verdicts"])
    assert "of matmul peak" in shown and "999 tokens exceed this model's chunks" in shown
    file = to / "bench.json"
    both = cli("bench", "--compare", file, file, "--to", to, "--fail-above", 5).stdout
    assert "too few runs" in both and (to / "compare.md").exists()
    slower = json.loads(file.read_text())
    for row, factor in ((slower["compress"][0], 2), (written["compress"][0], 1)):
        row["all_seconds"] = [factor * second for second in (1.0, 1.01, 1.02)]
        row["seconds"] = factor * 1.01
    file.write_text(json.dumps(written))
    (to / "slower.json").write_text(json.dumps(slower))
    compared = ("bench", "--compare", file, to / "slower.json", "--fail-above")
    assert cli(*compared, 200).exit_code == 0
    failed = cli(*compared, 10, "--json", ok=False)
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["failed"] == ["compress 1 x 16 tokens"]


def test_bench_says_what_is_wrong(cli: Any, folder: Any, tmp_path: Path) -> None:
    model = folder("c16", "e2e")
    assert "no part 'walk'" in cli("bench", model, "--only", "walk", ok=False).stderr
    assert cli("bench", model, "--fail-above", 5, ok=False).exit_code == 2
    long = cli("bench", model, "--only", "compress", "--lengths", "999", ok=False)
    assert "no length fits into a chunk, which holds 64 tokens" in long.stderr
    (tmp_path / "b.json").write_text("{}")
    wrong = cli("bench", "--compare", tmp_path / "b.json", tmp_path / "none.json", ok=False)
    assert "b.json: not a bench" in wrong.stderr
