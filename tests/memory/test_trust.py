"""Answers that can be trusted: what has nothing to do with a memory is not answered from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory, asking, calibrating
from clara_mlx.memory.asking import NOTHING_FOUND, is_grounded
from clara_mlx.store import calibration
from clara_mlx.store.calibration import UNMEASURED, Calibration
from clara_mlx.store.results import Hit

TEXTS = (
    "FAILED tests/test_ledger.py::test_close - KeyError\n1 failed, 12 passed in 3.1s\n",
    "commit 9f31c2a\nAuthor: Ada\n\n    close the ledger first\n",
    "PORT=8080\nHOST=localhost\n",
)


@pytest.fixture
def memory(tmp_path: Path, clara: Any) -> Iterator[Memory]:
    with Memory.open(tmp_path / "memory.db", clara("c16", "e2e")) as opened:
        for source, text in zip(("pytest", "git", "env"), TEXTS, strict=True):
            opened.remember(text, source=source)
        opened.flush(60)
        yield opened


def kept(memory: Memory) -> Calibration | None:
    assert memory.clara is not None
    return calibration.read(memory.file, memory.clara.fingerprint)


def hit(text: str, cosine: float | None = 0.5, share: float | None = None) -> Hit:
    return Hit("m-1", 0.5, cosine, ("text",), text, 0, 9, 1, None, None, 0.0, {}, 1, share=share)


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_refused(memory: Memory, question: str) -> None:
    with pytest.raises(ClaraError, match="the question is empty"):
        memory.ask(question)
    with pytest.raises(ClaraError, match="the question is empty"):
        memory.stream_ask(question)  # before anything is read of it


def test_flush_measures_what_unrelated_questions_score(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = kept(memory)
    assert found and found.count == memory.status().compressed
    best = [
        max(hit.cosine or -1 for hit in memory.recall(question, 9, mode="latent"))
        for question in calibrating.UNRELATED
    ]
    assert min(best) <= found.usual <= max(best)

    def never(*_: object) -> None:
        raise AssertionError("nothing has changed")

    with monkeypatch.context() as patched:
        patched.setattr(calibrating.Calibrator, "_measure", never)
        memory.flush(60)
        memory.recall("ledger")
    with memory.file.write() as connection:
        connection.execute("DELETE FROM meta WHERE key = 'calibration'")
    memory.flush(60)
    assert kept(memory) == found  # the same latents give the same figures
    for number in range(2 * len(TEXTS)):
        memory.remember(f"another text of its own, number {number}")
    memory.flush(60)
    again = kept(memory)
    assert again and again.count == memory.status().compressed > 2 * found.count


def test_damaged_figures_and_another_models_are_measured_again(memory: Memory) -> None:
    found = kept(memory)
    for value in ("{", '{"usual": "x"}', "null", '{"usual": 1, "spread": 1, "fingerprint": "x"}'):
        with memory.file.write() as connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'calibration'", (value,))
        assert kept(memory) is None
    memory.flush(60)
    assert kept(memory) == found


def test_what_has_nothing_to_do_with_the_memory_is_not_answered(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This model's latents are random, so all questions score alike: nothing is above the floor.
    high = Calibration(0.9, 0.05)
    monkeypatch.setattr(calibrating.Calibrator, "current", lambda self: high)
    assert memory.ask("What is the capital of France?", max_tokens=3).text == NOTHING_FOUND
    answer = memory.ask("What is the port?", max_tokens=3)
    assert "PORT=8080" in answer.evidence[0].text  # its word is enough
    # Who names what to look in gets what the model says of that.
    monkeypatch.setattr("clara_mlx.memory.asking.UNMEASURED", Calibration(-1.0, 0.01))
    assert memory.ask("What is the capital of France?", max_tokens=3).text == NOTHING_FOUND
    named = memory.ask("What is the branch?", 1, {"source": "git"}, max_tokens=3)
    assert named.evidence[0].source == "git"
    monkeypatch.setattr(calibrating.Calibrator, "current", lambda self: Calibration(-1.0, 0.01))
    assert memory.ask("What is the capital of France?", max_tokens=3).evidence


def test_what_is_worth_reading() -> None:
    hits = [
        hit("not compressed yet", None),
        hit("near", 0.31),
        hit("far", 0.29),
        hit("its words", 0.0, 0.5),
        hit("one small word", 0.0, 0.05),
    ]
    measured = asking.relevant(hits, None, Calibration(0.2, 0.05))
    assert [one.text for one in measured] == ["not compressed yet", "near", "its words"]
    given = asking.relevant(hits, 0.3, Calibration(0.2, 0.05))
    assert [one.text for one in given] == ["not compressed yet", "near"]
    assert asking.relevant(hits, None, None) == asking.relevant(hits, None, UNMEASURED)


@pytest.mark.parametrize(
    ("answer", "grounded"),
    [
        ("test_close", True),
        ("It was test_close.", True),
        ("KeyErrors", True),
        ("close", True),  # a part of a name
        ("cobra_reload", False),
        ("The test that failed is cobra_reload", False),  # the question's words don't count
        ("failed", True),  # but where there are no others
        ("", True),
        ("?!", True),
    ],
)
def test_an_answer_is_grounded_if_its_words_stand_in_the_evidence(
    answer: str, grounded: bool
) -> None:
    question = "Which test failed?"
    assert is_grounded(answer, question, [hit(TEXTS[2]), hit(TEXTS[0])]) is grounded


def test_an_answer_says_whether_it_is_grounded(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for said, grounded in (("8080", True), ("cobra_reload", False)):
        monkeypatch.setattr(type(memory.clara), "stream_answer", lambda *_, said=said: iter([said]))
        answer = memory.ask("What is the port?")
        assert (answer.text, answer.grounded) == (said, grounded)


def test_a_text_that_is_named_by_its_handle_is_read(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clara_mlx.memory.asking.UNMEASURED", Calibration(0.9, 0.05))
    handle = memory.recall("port", 1)[0].handle
    question = "What is the capital of France?"
    assert memory.ask(question, where={"source": "git"}, max_tokens=3).text == NOTHING_FOUND
    named = memory.ask(question, where={"handle": handle}, max_tokens=3)
    assert {hit.handle for hit in named.evidence} == {handle}
    memory.floor = 0.99  # a floor that was asked for counts always
    assert memory.ask(question, where={"handle": handle}, max_tokens=3).text == NOTHING_FOUND
