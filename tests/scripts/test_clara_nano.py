"""clara-nano, the CLaRa in this repository: complete, small, and right about unseen names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clara_mlx
from clara_mlx.evaluate import sets
from clara_mlx.memory.asking import NOTHING_FOUND

NANO = Path(__file__).parents[2] / "scripts" / "nano" / "clara-nano"


@pytest.fixture(scope="module")
def nano(cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("nano") / "q8"
    cli("convert", NANO / "checkpoint", "--base", NANO / "base", "--to", to, "-q", 8, "--verify")
    return to


def test_the_files_are_what_was_trained(cli: Callable[..., Any]) -> None:
    total = 0
    for line in (NANO / "SHA256SUMS").read_text().splitlines():
        expected, name = line.split()
        content = (NANO / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected, name
        assert len(content) < 4 << 20
        total += len(content)
    assert total < 12e6
    assert {"base", "checkpoint"} < {path.name for path in NANO.iterdir()}
    described = cli("inspect", NANO / "checkpoint").stdout
    assert all(name in described for name in ("encoder", "query_reasoner", "decoder"))


def test_answers_from_memory_tokens_are_exact(nano: Path) -> None:
    """With the evaluation's own outputs, some of them; all are in bench/results."""
    clara = clara_mlx.load(nano)
    right = asked = 0
    for output in sets.generate_set("brief", 0, 3).outputs:
        compressed = clara.compress(output.text)
        assert compressed.memory_tokens == clara.config.memory_tokens
        assert clara.config.doc_max_length / compressed.memory_tokens == 16
        for probe in output.probes[:3]:
            answer = clara.answer(probe.question, compressed.latents, max_tokens=24)
            right += answer == probe.answer
            asked += 1
    assert asked == 72
    assert right > 0.93 * asked


def test_the_right_output_is_found_and_its_answer_given(nano: Path, tmp_path: Path) -> None:
    outputs = sets.generate_set("brief", 1, 4).outputs
    with clara_mlx.Memory.open(tmp_path / "memory.db", clara_mlx.load(nano)) as memory:
        handles = [memory.remember(output.text, source=output.tool) for output in outputs]
        memory.flush()
        answers = []
        for output, handle in zip(outputs, handles, strict=True):
            if output.tool == "ripgrep":
                (probe, *_) = (p for p in output.probes if p.kind == "number")
                answer = memory.ask(probe.question, k=1, max_tokens=24)
                assert [hit.handle for hit in answer.evidence] == [handle]
                assert memory.original(handle) == output.text
                answers.append(answer.text == probe.answer)
    assert len(answers) == 4
    assert sum(answers) >= 3


# Outputs that clara-nano was never taught, each with a question about it.
OTHERS = {
    "web-1  | 10:02:11 worker 7 lost its lease on orders\nweb-1  | 10:02:12 restarting\n": (
        "Which worker lost its lease?"
    ),
    "error TS2551: Property 'lenght' does not exist on type 'Basket'.\n": (
        "Which property does not exist?"
    ),
    "Plan: 2 to add, 0 to change, 1 to destroy.\n": "How many are planned to be destroyed?",
    "Segmentation fault (core dumped) in mixer_flush\n": "Where was the segmentation fault?",
    "npm ERR! peer left-pad@^1.3 from kerning@2.0.1\n": "Which peer does kerning ask for?",
}


def test_a_question_about_something_else_is_not_answered(nano: Path, tmp_path: Path) -> None:
    outputs = sets.generate_set("brief", 2, 1).outputs
    unrelated = [
        *("What is the capital of France?", "Who was the first emperor of Rome?"),
        *("How deep is the Mariana trench?", "When was the telephone invented?"),
    ]
    with clara_mlx.Memory.open(tmp_path / "memory.db", clara_mlx.load(nano)) as memory:
        for output in outputs:
            memory.remember(output.text, source=output.tool)
        memory.flush()
        answers = [memory.ask(question).text for question in unrelated]
        assert answers[0] == NOTHING_FOUND and answers.count(NOTHING_FOUND) >= 3
        for output in outputs:
            probe = output.probes[0]
            found = memory.ask(probe.question, 1, {"source": output.tool}, max_tokens=24)
            assert found.text != NOTHING_FOUND, probe.question


def test_outside_its_task_it_does_not_spoil_what_words_find(nano: Path, tmp_path: Path) -> None:
    with clara_mlx.Memory.open(tmp_path / "memory.db", clara_mlx.load(nano)) as memory:
        for text in (
            *OTHERS,
            *(output.text for output in sets.generate_set("brief", 3, 2).outputs),
        ):
            memory.remember(text)
        memory.flush()
        for text, question in OTHERS.items():
            assert memory.recall(question, 1, mode="text")[0].text in text
            assert memory.recall(question, 1)[0].text in text
