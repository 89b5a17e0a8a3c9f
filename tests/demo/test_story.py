"""The demo: what it tells is true, on its own project, with the model that the package has."""

from __future__ import annotations

from pathlib import Path

import pytest

from clara_mlx.cli.demo import lines_of_story
from clara_mlx.cli.output import emit
from clara_mlx.demo import exchange, story
from clara_mlx.demo.project import COMMANDS, QUESTIONS
from clara_mlx.memory import Memory


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, story.Told]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, story.tell(folder, lambda step: None)


def test_outputs_are_remembered_and_come_back(told: tuple[Path, story.Told]) -> None:
    folder, what = told
    assert [output.command for output in what.outputs] == [command.typed for command in COMMANDS]
    assert what.originals["equal"] == what.originals["of"] == len(COMMANDS)
    with Memory.open(folder / "memory.db") as memory:
        tests = str(memory.original(what.outputs[0].handle))
        assert "FAIL: test_tavern_primal" in tests and "Ran 41 tests" in tests
        assert len(tests.splitlines()) == what.outputs[0].lines
    assert all(output.tokens > output.memory_tokens for output in what.outputs)


def test_answers_are_judged_by_what_is_known(told: tuple[Path, story.Told]) -> None:
    _, what = told
    known = {question.text: question.answer for question in QUESTIONS}
    for one in what.asked:
        assert one.is_right == (one.answer == known[one.question])
        assert not one.evidence or one.answer in one.evidence
    # What clara-nano was trained for; the long output is beyond it.
    assert sum(one.is_right for one in what.asked) >= 4
    assert what.found["text"].strip() == "src/grain_iron.py:9:def cobra_nickel():"


def test_it_fits_one_screen(
    told: tuple[Path, story.Told], capsys: pytest.CaptureFixture[str]
) -> None:
    emit(told[1], list(lines_of_story(told[1])), as_json=False)
    shown = capsys.readouterr().out
    assert "4 of 4 originals are the same" in shown
    assert "% less" in shown and "clara-mlx connect claude" in shown
    assert len(shown.splitlines()) <= 45


def test_a_conversation_becomes_shorter(told: tuple[Path, story.Told]) -> None:
    conversation = told[1].conversation
    assert conversation["sent"] < 0.5 * conversation["tokens"]
    assert conversation["compacted"][0] in conversation["block"]


def test_an_agent_works_on_beyond_the_window(tmp_path: Path) -> None:
    exchanged = exchange.work(tmp_path, lambda step: None)
    room = exchanged.window - 512
    assert exchanged.turns[-1].sent > 2 * room and exchanged.overflow
    assert all(turn.read <= room for turn in exchanged.turns[:-1])
    assert exchanged.turns[-1].what == "the last answer"
    assert exchanged.tool == "ask_memory" and "AssertionError: 42 != 43" in exchanged.fact
