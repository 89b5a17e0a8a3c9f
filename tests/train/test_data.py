"""Training data: every line is used as it says, or refused with its number; nothing is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.errors import ClaraError
from clara_mlx.train.batches import Batching, Collator, distinct
from clara_mlx.train.data import Dataset, read
from clara_mlx.train.stages import stage_named

QA = {"docs": ["a limit of 16"], "question": "What limit?", "answer": "16"}
SEVERAL = {"docs": ["a limit of 16"], "question": ["What?", "How much?"], "answers": ["it", "16"]}


@pytest.fixture
def load(clara: Any, tmp_path: Path) -> Any:
    model = clara("c16", "e2e")

    def load(*lines: Any, stage: str = "instruct", **options: Any) -> Dataset:
        file = tmp_path / "examples.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        file.write_text("\n".join(texts))
        options = {"max_length": 512, "top_k": 2} | options
        return read([file], stage_named(stage), model.config, model.tokenizer, **options)

    return load


def test_the_references_field_names(load: Any) -> None:
    for documents in ("docs", "context", "content"):
        for answers in ({"answer": "16"}, {"answers": ["16"]}, {"golden_answers": ["16", "so"]}):
            line = {documents: ["x"], "question": "What?", **answers, "gold_answer": "ignored"}
            (example,) = load(line).examples
            assert (example.question, example.answer) == ("What?", "16")


def test_gold_answers_numbers_and_truth_are_read_as_they_are_written(load: Any) -> None:
    """Apple's own description of the format has gold_answer."""
    asked = '{"docs": ["x"], "question": "?", %s}'
    written = {
        '"gold_answer": "16"': "16",
        '"gold_answer": ["16", "sixteen"]': "16",
        '"answer": 42': "42",
        '"answer": -1.50': "-1.50",
        '"answer": true': "true",
        '"answers": [false]': "false",
        '"answer": null, "golden_answers": [7]': "7",
        '"golden_answers": "16"': "16",
    }
    data = load(*(asked % answer for answer in written))
    assert [example.answer for example in data.examples] == list(written.values())


def test_a_byte_order_mark_is_no_part_of_the_first_line(load: Any) -> None:
    plain, marked = load(QA), load("\ufeff" + json.dumps(QA))
    assert [e.answer for e in marked.examples] == ["16"]
    assert marked.hashes == plain.hashes


def test_several_questions_about_the_same_documents_share_them(load: Any) -> None:
    data = load(QA, SEVERAL, {**QA, "docs": ["another"]})
    assert [len(group) for group in data.groups] == [3, 1]
    assert len(data.documents) == 2
    assert [e.answer for e in data.groups[0]] == ["16", "it", "16"]


def test_scp_asks_for_all_questions_at_once_and_paraphrases(load: Any) -> None:
    rephrased = {"docs": ["x"], "data_type": "paraphrase", "answers": ["in other words"]}
    questions, paraphrase = load(SEVERAL, rephrased, stage="scp").examples
    assert questions.answer == "Question: What?\nAnswer: it\nQuestion: How much?\nAnswer: 16"
    assert (paraphrase.question, paraphrase.answer) == ("", "in other words")
    assert len(paraphrase.prompts) == 2


BAD = {
    "not JSON": ("{", "Expecting"),
    "not an object": ("[1]", "not a JSON object"),
    "no documents": ({**QA, "docs": "text"}, "no list of documents"),
    "no text": ({**QA, "docs": [1]}, "not a list of texts"),
    "no answer": ({"docs": ["x"], "question": "?"}, "no answer"),
    "null": ({**QA, "answer": None}, "answer is null, but an answer is a text"),
    "an object": ({**QA, "answer": {"text": "x"}}, "answer is an object, but an answer is a text"),
    "none of several": ({**QA, "answers": [], "answer": None}, "answer is null"),
    "not all": ({"docs": ["x"], "question": "?", "answers": ["x", None]}, "something else in it"),
    "not a number": ('{"docs": ["x"], "question": "?", "answer": NaN}', "answer is nan"),
    "no question": ({"docs": ["x"], "answer": "x"}, "question is not a list"),
    "counts": ({**SEVERAL, "answers": ["it"]}, "2 questions, but 1 answers"),
    "empty answer": ({**QA, "answer": " "}, "is empty"),
    "a positive that is not there": ({**QA, "pos_index": [1]}, "pos_index"),
    "another type": ({**QA, "data_type": "chat"}, "neither qa nor paraphrase"),
    "too long a document": ({**QA, "docs": ["x", "word " * 99]}, "document 1 has .* holds 64"),
    "too long a prompt": ({**QA, "answer": "x " * 600}, "at most 512"),
}


@pytest.mark.parametrize("name", BAD)
def test_lines_that_are_refused(load: Any, name: str, tmp_path: Path) -> None:
    line, reason = BAD[name]
    with pytest.raises(ClaraError, match=rf"examples.jsonl:2: .*{reason}"):
        load(QA, line)


def test_all_bad_lines_are_named_and_what_a_stage_needs(load: Any) -> None:
    with pytest.raises(ClaraError, match=r"lines.*: 2(.|\n)*jsonl:1(.|\n)*jsonl:3"):
        load("{", QA, "{")
    with pytest.raises(ClaraError, match="needs a positive"):
        load(QA, stage="retrieval")
    with pytest.raises(ClaraError, match="1 different documents, but top_k is 2"):
        load(QA, stage="end-to-end")
    paraphrase = {"docs": ["x"], "data_type": "paraphrase", "answer": "y"}
    with pytest.raises(ClaraError, match="paraphrase"):
        load(paraphrase, stage="end-to-end")
    long = {**QA, "docs": ["a", "b"], "question": "why " * 99}
    with pytest.raises(ClaraError, match="the question has"):
        load(long, stage="end-to-end")
    with pytest.raises(ClaraError, match="no examples"):
        load("")


def test_long_documents_become_chunks(load: Any, clara: Any) -> None:
    text = "\n".join(f"line {i} of the log" for i in range(40))
    line = {**QA, "docs": ["short", text], "pos_index": [1]}
    data = load(line, long_documents="chunk", stage="retrieval")
    (example,) = data.examples
    assert data.chunked == 1 and len(data.documents) > 3
    assert example.documents == tuple(range(len(data.documents)))
    assert example.positives == example.documents[1:]  # every chunk of the positive document
    tokenizer = clara("c16", "e2e").tokenizer
    bodies = [tokenizer.decode(ids[2:-5]) for ids in data.documents[1:]]
    assert "".join("".join(bodies).split()) == "".join(text.split())


# -- batches -------------------------------------------------------------------------------------


@pytest.fixture
def many(load: Any) -> Dataset:
    lines = [
        {
            "docs": [f"the value {i} is " + "so " * (i % 7)],
            "question": [f"question {j}?" for j in range(1 + i % 5)],
            "answers": [f"answer {j}" for j in range(1 + i % 5)],
        }
        for i in range(37)
    ]
    return load(*lines)


def test_an_epoch_has_every_example_once_and_follows_from_the_seed(many: Dataset) -> None:
    batching = Batching(batch_size=12, micro_batch_size=5, questions_per_document=3, seed=1)
    epoch = batching.epoch(many, 4)
    shown = [(e.where, e.question) for step in epoch for micro in step for e in micro]
    assert sorted(shown) == sorted((e.where, e.question) for e in many.examples)
    for step in epoch:
        assert sum(map(len, step)) <= 12
        assert all(0 < len(micro) <= 5 for micro in step)
    assert batching.epoch(many, 4) == epoch
    assert batching.epoch(many, 5) != epoch
    assert Batching(12, 5, 3, seed=2).epoch(many, 4) != epoch
    # Questions about one document are neighbours, so their documents are encoded once.
    encoded = sum(len(distinct(micro)) for step in epoch for micro in step)
    apart = Batching(12, 5, 1, seed=1).epoch(many, 4)
    assert encoded < sum(len(distinct(micro)) for step in apart for micro in step)


def test_weights_of_a_step_sum_to_one_over_its_micro_batches(many: Dataset) -> None:
    (step, *_) = Batching(12, 5, 3, seed=1).epoch(many, 0)
    collator = Collator(many, 4)
    batches = [collator.arrays(micro, collator.totals(step))[0] for micro in step]
    for name in ("target_weights", "document_weights"):
        assert abs(sum(batch[name].sum().item() for batch in batches) - 1) < 1e-5
