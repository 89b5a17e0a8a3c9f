"""Training examples from tool outputs, in the reference's JSON lines (see `clara_mlx.train.data`).

An output is split into documents at line ends; a question goes with the document that holds its
evidence. The rules ask questions, and so does a `QuestionWriter` if one is given.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clara_mlx.errors import ClaraError, reason
from clara_mlx.evaluate.probes.from_facts import probes
from clara_mlx.store.atomic import partial_file
from clara_mlx.tool_outputs.rules import RULES
from clara_mlx.train.examples.question_writer import QuestionWriter
from clara_mlx.train.examples.trajectories import ToolOutput

Stage = Literal["scp", "instruct", "retrieval", "end-to-end"]


@dataclass(frozen=True)
class Document:
    """A piece of a tool output with its questions and answers."""

    text: str  # whole lines of the output
    tool: str | None  # the kind of output, as in `ToolOutput`
    pairs: tuple[tuple[str, str], ...]  # question and answer; no question occurs twice


def make_documents(
    outputs: Iterable[ToolOutput], characters: int = 800, writer: QuestionWriter | None = None
) -> list[Document]:
    """Make documents that questions can be asked about; no two have the same text.

    Args:
        outputs: Tool outputs from `clara_mlx.train.examples.trajectories.read`, secrets masked.
        characters: The most characters of a document; a longer line is a document of its own.
        writer: Writes more questions; if the rules ask the same, their answer is kept.
    """
    known: dict[str, Document] = {}
    for output in outputs:
        asked = probes(output.text, output.tool) if output.tool in RULES else ()
        for start, end in split_at_lines(output.text, characters):
            text = output.text[start:end].rstrip("\n")
            if text in known:
                continue
            pairs = {
                probe.question: probe.answer
                for probe in asked
                if start <= probe.start and probe.end <= end and "[masked:" not in probe.answer
            }
            for question, answer in writer.write(text) if writer and text.strip() else ():
                pairs.setdefault(question, answer)
            if pairs:
                known[text] = Document(text, output.tool, tuple(pairs.items()))
    return list(known.values())


def split_at_lines(text: str, characters: int) -> Iterator[tuple[int, int]]:
    """Spans of whole lines that cover the text; only a longer line has more ``characters``."""
    start = end = 0
    for line in text.splitlines(keepends=True):
        if end > start and end + len(line) - start > characters:
            yield start, end
            start = end
        end += len(line)
    if end > start:
        yield start, end


def make_records(
    documents: list[Document], stage: Stage, candidates: int = 1, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """The records of a stage's training file, one for each line.

    A record of ``scp`` asks all questions about a document. A record of another stage asks one
    question and offers that many ``candidates``: the document and outputs of other tools, which
    do not answer it. ``pos_index`` says which candidate has the answer.

    Raises:
        ClaraError: There are too few documents of other tools.
    """
    rng = random.Random(seed)
    for document in documents:
        if stage == "scp":
            questions, answers = zip(*document.pairs, strict=True)
            yield {
                "data_type": "qa",
                "question": list(questions),
                "answers": list(answers),
                "docs": [document.text],
            }
            continue
        others = [other.text for other in documents if other.tool != document.tool]
        if len(others) < candidates - 1:
            raise ClaraError(
                f"{candidates} candidates need {candidates - 1} documents of tools other than "
                f"{document.tool}, but there are {len(others)}: read more logs, or ask for fewer"
            )
        for question, answer in document.pairs:
            docs = [document.text, *rng.sample(others, candidates - 1)]
            rng.shuffle(docs)
            yield {
                "data_type": "qa",
                "question": question,
                "answer": answer,
                "docs": docs,
                "pos_index": [docs.index(document.text)],
            }


def write_records(records: Iterable[dict[str, Any]], file: Path) -> int:
    """Write records as JSON lines to a file that is complete or not there; return their number.

    Raises:
        ClaraError: The file can't be written.
    """
    count = 0
    try:
        with partial_file(file) as partial, partial.open("w", encoding="utf-8") as lines:
            for record in records:
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")
                count += 1
    except OSError as error:
        raise ClaraError(f"{file}: {reason(error)}") from error
    return count
