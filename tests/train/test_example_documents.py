from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.errors import ClaraError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.tokenizer import TextTokenizer
from clara_mlx.train import data
from clara_mlx.train.examples.documents import (
    make_documents,
    make_records,
    split_at_lines,
    write_records,
)
from clara_mlx.train.examples.trajectories import ToolOutput
from clara_mlx.train.stages import STAGES

PYTEST = "FAILED tests/test_store.py::test_take - KeyError: 'bolt'\n1 failed, 3 passed in 0.62s\n"
GREP = "inventory/store.py:15:    def take(self, name, count):\nREADME.md:3:take one\n"


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
    made = make_documents(OUTPUTS)
    assert [document.tool for document in made] == ["pytest", "ripgrep", "env"]
    for document in made:
        assert len({question for question, _ in document.pairs}) == len(document.pairs)
        for question, answer in document.pairs:
            assert answer in document.text or question.startswith("How many matches")


def test_long_outputs_are_cut_at_lines() -> None:
    text = "".join(f"KEY_{number}={number * 7}\n" for number in range(200))
    made = make_documents([output(text, "env")], characters=120)
    assert all(len(document.text) <= 120 for document in made)
    assert sum(len(document.pairs) for document in made) == 200
    for document in made:
        for question, answer in document.pairs:
            key = question.removeprefix("What is the value of ").removesuffix("?")
            assert f"{key}={answer}" in document.text


@given(st.text(st.sampled_from("ab\n\r"), max_size=200), st.integers(1, 50))
def test_pieces_cover_the_text(text: str, characters: int) -> None:
    spans = list(split_at_lines(text, characters))
    assert "".join(text[start:end] for start, end in spans) == text
    for start, end in spans:
        assert end - start <= characters or len(text[start:end].splitlines()) == 1


@pytest.mark.parametrize(
    ("stage", "candidates"), [("scp", 1), ("instruct", 1), ("end-to-end", 3), ("retrieval", 3)]
)
def test_the_trainer_reads_what_was_written(
    tmp_path: Path, golden: Path, stage: Any, candidates: int
) -> None:
    made = make_documents(OUTPUTS)
    file = tmp_path / "train.jsonl"
    count = write_records(make_records(made, stage, candidates), file)
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
    made = make_documents(OUTPUTS)
    assert list(make_records(made, "retrieval", 2, seed=3)) == list(
        make_records(made, "retrieval", 2, seed=3)
    )
    with pytest.raises(ClaraError, match="4 candidates need 3 documents"):
        list(make_records(made, "retrieval", 4))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ClaraError, match="missing"):
        write_records([], tmp_path / "missing" / "train.jsonl")


def test_written_questions_join_those_of_the_rules() -> None:
    class Writer:
        def write(self, text: str) -> list[tuple[str, str]]:
            return [("Which test failed?", "KeyError"), ("Which item?", "bolt")]

    (document,) = make_documents([output(PYTEST, "pytest")], writer=Writer())
    pairs = dict(document.pairs)
    assert pairs["Which item?"] == "bolt"
    assert pairs["Which test failed?"] == "test_take"  # the rules' answer stays
