"""Sets of probes: the same for a seed, disjoint where they must be, and damaged files refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import sized

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate import sets
from clara_mlx.evaluate.corpus import BRIEF_TOOLS, LEFT_OUT, TOOLS

LINE = {"document": "1 failed, 2 passed", "question": "How many passed?", "answer": "2"}


def written(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


@pytest.mark.parametrize("name", ["brief", "held-out", "long", "left-out"])
def test_generated_sets(name: str) -> None:
    one, more = sets.generate_set(name, 7, 1), sets.generate_set(name, 7, 2)
    assert sets.generate_set(name, 7, 1) == one
    assert more.outputs[: len(one.outputs)] == one.outputs
    assert sets.generate_set(name, 8, 1).outputs != one.outputs
    tools = {output.tool for output in more.outputs}
    special = {"brief": set(BRIEF_TOOLS), "left-out": {LEFT_OUT}}
    assert tools == special.get(name, set(TOOLS) - {LEFT_OUT})
    assert len({output.text for output in more.outputs}) == len(more.outputs)
    described = more.to_dict()
    assert described["probes"] == sum(len(output.probes) for output in more.outputs)
    assert described["sha256"] != one.to_dict()["sha256"]
    assert described["sha256"] == sets.generate_set(name, 7, 2).to_dict()["sha256"]


def test_captured_outputs() -> None:
    captured = sets.read_captured_set()
    assert len(captured.outputs) > 50
    assert LEFT_OUT in TOOLS
    for output in captured.outputs:
        assert output.probes


def test_own_probes(tmp_path: Path) -> None:
    other = {"document": "x = 'a b'", "question": "What is x?", "answer": "a b", "tool": "env"}
    spanned = LINE | {"question": "How many ran?", "answer": "3", "start": 0, "end": 18}
    kind = LINE | {"question": "How many failed?", "answer": "1", "kind": "message"}
    file = written(tmp_path / "own.jsonl", LINE, "", other, spanned, kind, "  ")
    own = sets.read_own_set(file)
    assert [(output.tool, len(output.probes)) for output in own.outputs] == [("own", 3), ("env", 1)]
    first, second, third = own.outputs[0].probes
    assert (first.start, first.end, first.kind) == (10, 11, "number")
    assert (second.start, second.end) == (0, 18)
    assert third.kind == "message"
    (only,) = own.outputs[1].probes
    assert own.outputs[1].text[only.start : only.end] == "a b"


def test_training_examples_are_probes(tmp_path: Path) -> None:
    """As `clara-mlx examples` writes them: the document that answers is asked about."""
    one = {"docs": ["a", "2 passed"], "question": "How many?", "answer": "2", "pos_index": [1]}
    two = {"docs": ["1 and 1"], "question": "How many together?", "answer": "2"}
    first, second = sets.read_own_set(written(tmp_path / "own.jsonl", one, two)).outputs
    assert first.text == "2 passed" and (first.probes[0].start, first.probes[0].end) == (0, 1)
    assert second.text == "1 and 1" and (second.probes[0].start, second.probes[0].end) == (0, 7)
    for wrong in ({"docs": []}, {"docs": ["a"], "pos_index": [3]}, {"docs": [1]}, {"docs": {}}):
        with pytest.raises(ClaraError, match=r"own\.jsonl:1: "):
            sets.read_own_set(written(tmp_path / "own.jsonl", two | wrong))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ({"document": "a", "question": "b"}, '"answer" is missing'),
        (LINE | {"answer": 2}, '"answer" must be of type str'),
        (LINE | {"question": " "}, '"question" is empty'),
        (LINE | {"answer": "7"}, "does not contain the answer"),
        (LINE | {"answer": ""}, "the answer '' to"),
        (LINE | {"answer": "1 failed, 2 passed" + "!" * 60, "start": 0, "end": 3}, "1 to 60"),
        (LINE | {"start": 3}, 'both "start" and "end"'),
        (LINE | {"start": 3, "end": 3}, "spans 3 to 3"),
        (LINE | {"start": -1, "end": 3}, "spans -1 to 3"),
        (LINE | {"start": 3, "end": 99}, "has 18 characters"),
        (LINE | {"start": True, "end": 3}, '"start" must be of type int'),
        (LINE | {"kind": "poem"}, "not a kind of answer"),
        (LINE, "was already asked about this document"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: Any, message: str) -> None:
    file = written(tmp_path / "own.jsonl", LINE, line)
    with pytest.raises(ClaraError, match=r"lines that are not probes: 1") as error:
        sets.read_own_set(file)
    assert f"{file}:2: " in str(error.value)
    assert message in str(error.value)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    file = written(tmp_path / "own.jsonl", *["{"] * 30)
    with pytest.raises(ClaraError) as error:
        sets.read_own_set(file)
    assert f"{file}:20: " in str(error.value)
    assert "and 10 more" in str(error.value)


def test_no_file_and_no_probes(tmp_path: Path) -> None:
    with pytest.raises(ClaraError, match="No such file"):
        sets.read_own_set(tmp_path / "missing.jsonl")
    with pytest.raises(ClaraError, match="no probes"):
        sets.read_own_set(written(tmp_path / "empty.jsonl", "\n\n"))


@settings(deadline=None, max_examples=sized(100, 2000))
@given(content=st.binary(max_size=80))
def test_any_file_is_probes_or_an_error(content: bytes, tmp_path_factory: Any) -> None:
    file = tmp_path_factory.mktemp("probes") / "own.jsonl"
    file.write_bytes(content)
    with pytest.raises(ClaraError):
        sets.read_own_set(file)
