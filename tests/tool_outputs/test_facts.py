"""Facts, and the patterns that find them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from real_outputs import (
    LOG,
    LS,
)

from clara_mlx.evaluate.probes.from_facts import probes
from clara_mlx.evaluate.probes.questions import FORMS, question
from clara_mlx.tool_outputs import rules
from clara_mlx.tool_outputs.facts import OPEN_VALUES, OUTCOMES
from clara_mlx.tool_outputs.lines import split_lines
from clara_mlx.tool_outputs.rules import facts

ROOM = Path(rules.__file__).parent


def test_facts_keep_what_no_question_asks() -> None:
    """Several values and long values are facts, too; each is there once, at its first place."""
    reason = "ValueError: " + "a long reason " * 5 + "ends here"
    text = f"collected 2 items\nFAILED t.py::test_a - {reason}\nFAILED t.py::test_b - {reason}\n"
    text += "2 failed in 1.0s\n"
    found = facts(text, "pytest")
    assert [(fact.start, fact.end) for fact in found] == sorted((f.start, f.end) for f in found)
    assert all(text[fact.start : fact.end] == fact.text for fact in found)
    stated = [(fact.name, dict(fact.about), fact.text) for fact in found]
    assert len(stated) == len({str(one) for one in stated})
    assert [text for name, _, text in stated if name == "failed_test"] == ["test_a", "test_b"]
    assert ("error_message_of", {"name": "test_a"}, reason.partition(" ")[2]) in stated


@pytest.mark.parametrize(
    ("tool", "text", "telling"),
    [
        (
            "pytest",
            "platform linux -- Python 3.12.1\nrootdir: /a\ncollected 2 items\n"
            "a/t.py::test_a PASSED\nFAILED a/t.py::test_b - KeyError: 'a'\n"
            "1 failed, 1 passed in 1.0s",
            ["FAILED a/t.py::test_b - KeyError: 'a'", "1 failed, 1 passed in 1.0s"],
        ),
        ("ls", LS, []),
        ("git-log", LOG, [" 1 file changed, 8 insertions(+), 4 deletions(-)"]),
        (
            "mypy",
            "Success: no issues found in 3 source files",
            ["Success: no issues found in 3 source files"],
        ),
    ],
)
def test_facts_know_whether_they_tell_the_outcome(tool: str, text: str, telling: list[str]) -> None:
    starts = {fact.start for fact in facts(text, tool) if fact.tells_outcome}
    lines = split_lines(text)
    found = [
        line.text for line in lines for start in starts if 0 <= start - line.start < len(line.text)
    ]
    assert list(dict.fromkeys(found)) == telling


def test_a_tree_may_begin_in_the_middle() -> None:
    assert facts("│   │   └── a.py\n├── docs\n│   └── b.md\n", "tree")[0].text == "docs"


def test_every_fact_has_a_question() -> None:
    assert set(FORMS) >= OUTCOMES | OPEN_VALUES
    (asked,) = probes("#8 writing image sha256:0a1b2c3d done", "build")
    assert (asked.question, asked.answer) == (question("image_id"), "0a1b2c3d")


def _unescape(match: re.Match[str]) -> str:
    return match[0].encode().decode("unicode_escape")


@pytest.mark.parametrize("file", sorted(ROOM.glob("*.py")), ids=lambda file: file.stem)
def test_the_comment_above_a_pattern_is_matched_by_it(file: Path) -> None:
    module = import_module(f"clara_mlx.tool_outputs.{file.stem}")
    source = file.read_text(encoding="utf-8")
    for example, name in re.findall(r"^# (.*)\n(\w+) = re\.compile", source, re.MULTILINE):
        example = re.sub(r"\\[nrt]|\\x\w\w|\\u\w{4}", _unescape, example)
        assert getattr(module, name).search(example), name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a",
        "a\n",
        "a\r\nb\n\n",
        "x" * 300_000 + "\ny",
        "\n".join(map(str, range(60_000))),
        "z\n" * 999,
    ],
)
def test_lines_and_where_they_start(text: str) -> None:
    starts = [0, *(i + 1 for i, one in enumerate(text) if one == "\n")]
    shown = [line[:2_000].removesuffix("\r") for line in text.split("\n")]
    assert list(split_lines(text)) == list(zip(starts, shown, strict=True))


@pytest.mark.parametrize("repeated", ["", "a", "# x\n\n", "a\nb\nc\nd"])
def test_lines_that_repeat_themselves_are_not_read_for_ever(repeated: str) -> None:
    lines = list(split_lines(f"{repeated}\n" * 50_000 + "z\n" + "\r\n" * 50_000))
    parts = repeated.split("\n")
    assert [line.text for line in lines[: 2 * len(parts)]] == 2 * parts
    number = next(index for index, line in enumerate(lines) if line.text == "z")
    assert 1_000 <= number < 1_010
    assert lines[number].start == 50_000 * (len(repeated) + 1)
    assert 1_000 < len(lines) - number < 1_010
