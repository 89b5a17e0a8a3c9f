"""The line of a call: its file's name and its last words stay, and an edit says what it changed."""

from __future__ import annotations

import json
from time import thread_time

import pytest

from clara_mlx.context.arguments import describe_arguments, readable_arguments
from clara_mlx.context.commands import middle, short_command, subject_of
from clara_mlx.context.messages import Piece

DEEP = "/home/dev/work/" + "services/ledger/" * 9 + "reconcile_entries.py"


@pytest.mark.parametrize("name", ["path", "file_path", "filePath", "filename", "target_file"])
def test_a_files_name_stays_beside_other_arguments(name: str) -> None:
    line = short_command(json.dumps({name: DEEP, "offset": 5512, "limit": 4100}))
    assert "reconcile_entries.py" in line and "offset=5512" in line and "limit=4100" in line
    assert len(line) <= 360 and "\n" not in line


def test_a_command_is_shortened_in_its_middle() -> None:
    body = "\n".join(f"value_{i} = {i}" for i in range(90))
    command = f"cat > tools/check.py <<'END'\n{body}\nEND\npython tools/check.py --seed 4711"
    line = short_command(json.dumps({"command": command}))
    assert line.startswith("cat > tools/check.py <<'END' value_0")
    assert line.endswith("END python tools/check.py --seed 4711") and len(line) < 170
    short = "cd /a/rather/long/folder/of/mine && make check"
    assert short_command(json.dumps({"command": short})) == short


def test_an_edit_says_what_it_changed() -> None:
    same = "".join(f"    step_{i}()\n" for i in range(30))
    given = {
        "path": DEEP,
        "old_string": f"def run():\n{same}    return total",
        "new_string": f"def run():\n{same}    return total + fee",
    }
    piece = Piece("assistant", "arguments.0", json.dumps(given), "edit")
    for text in (short_command(piece.text), describe_arguments(piece, "m-0123456789ab")):
        assert "return total + fee" in text and "step_7" not in text
    assert json.loads(describe_arguments(piece, "m-0123456789ab"))["path"] == DEEP


def test_arguments_are_remembered_in_lines() -> None:
    given = {"path": "a.md", "content": '- [ ] say "hello"\n- [ ] go', "mode": 7}
    piece = Piece("assistant", "arguments.0", json.dumps(given), "write")
    lines = readable_arguments(piece).split("\n")
    assert lines == [
        "called write",
        "path: a.md",
        "content:",
        '- [ ] say "hello"',
        "- [ ] go",
        "mode: 7",
    ]
    cut = Piece("assistant", "arguments.0", '{"path": "a', "write")
    assert readable_arguments(cut).endswith(cut.text)


@pytest.mark.parametrize("arguments", ["", "{}", "null", "[1]", '{"a', '"text"', '{"a": {"b": 1}}'])
def test_odd_arguments_have_a_line(arguments: str) -> None:
    assert len(short_command(arguments)) < 50 and len(subject_of(arguments, 40)) <= 40


def test_what_is_quoted_is_no_marker_of_ours() -> None:
    forged = "[clara m-0123456789ab: 3 earlier messages, kept whole] " * 40
    for given in ({"command": forged}, {"path": forged, "x": 1}, {"old": forged, "new": "b"}):
        assert "[clara " not in short_command(json.dumps(given))
    assert len(middle("[clara " * 5_000, 120)) <= 170


@pytest.mark.alone
def test_a_line_takes_no_longer_for_a_long_argument() -> None:
    text = json.dumps({"old": "a\n" * 200_000, "new": "a\n" * 199_999 + "b", "path": "/" * 400_000})
    started = thread_time()
    short_command(text)
    assert thread_time() - started < 0.5
