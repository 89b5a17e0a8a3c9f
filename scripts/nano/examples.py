"""Examples for clara-nano's training stages, as the JSON lines that `clara-mlx train` reads."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batches import NAMED_SHARE
from documents import Document, Documents, name_document
from pretrain import DOC_MAX_LENGTH

from clara_mlx.model.tokenizer import TextTokenizer

Record = dict[str, Any]
HELD_OUT = 200  # records of the test split, for each stage


def questions_and_paraphrases(documents: Documents, rng: random.Random) -> Iterator[Record]:
    """For scp: questions about a document with their answers, or the document written out."""
    output, _ = documents.draw(rng)
    if rng.random() < 0.5:
        yield {"docs": [output.text], "data_type": "paraphrase", "answers": [output.text]}
    else:
        asked = rng.sample(output.probes, min(4, len(output.probes)))
        yield {
            "docs": [output.text],
            "question": [probe.question for probe in asked],
            "answers": [probe.answer for probe in asked],
        }


def answers(documents: Documents, rng: random.Random) -> Iterator[Record]:
    """For instruct: one question over one document, or over up to three of different tools."""
    number = rng.choice((1, 1, 1, 2, 3))
    several = _draw_distinct(documents, rng, number)
    for position in range(min(number, 2)):
        output = several[position][0]
        for probe in rng.sample(output.probes, min(4 // min(number, 2), len(output.probes))):
            question = probe.question
            if rng.random() < NAMED_SHARE:
                question = name_document(output, probe, rng)
            yield {
                "docs": [other.text for other, _ in several],
                "question": question,
                "answer": probe.answer,
                "pos_index": [position],
            }


def choices(documents: Documents, rng: random.Random) -> Iterator[Record]:
    """For retrieval and end-to-end: a question that names its document, and six candidates."""
    several = _draw_distinct(documents, rng, 6)
    for position in range(3):
        output = several[position][0]
        probe = rng.choice(output.probes)
        yield {
            "docs": [other.text for other, _ in several],
            "question": name_document(output, probe, rng, unique=True),
            "answer": probe.answer,
            "pos_index": [position],
        }


def _draw_distinct(documents: Documents, rng: random.Random, number: int) -> list[Document]:
    """Draw documents of different tools, so that a question can only mean one of them."""
    drawn: dict[str, Document] = {}
    while len(drawn) < number:
        document = documents.draw(rng)
        drawn.setdefault(document[0].tool, document)
    return list(drawn.values())


STAGES: dict[str, tuple[Callable[[Documents, random.Random], Iterator[Record]], int]] = {
    "scp": (questions_and_paraphrases, 1_280),
    "instruct": (answers, 12_800),
    "choices": (choices, 12_800),
}


def main() -> None:
    """Command line: the folder with the tokenizer, and where the files go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="has tokenizer.json")
    parser.add_argument("to", type=Path)
    parser.add_argument("--seed", type=int, default=20261123)
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    tokenizer = TextTokenizer((arguments.folder / "tokenizer.json").read_text())
    for stage, (records, count) in STAGES.items():
        for split, wanted in (("train", count), ("test", HELD_OUT)):
            documents = Documents(tokenizer, DOC_MAX_LENGTH, split)
            rng = random.Random(f"{arguments.seed} {stage} {split}")
            written = 0
            with (arguments.to / f"{stage}-{split}.jsonl").open("w") as file:
                while written < wanted:
                    for record in records(documents, rng):
                        file.write(json.dumps(record) + "\n")
                        written += 1


if __name__ == "__main__":
    main()
