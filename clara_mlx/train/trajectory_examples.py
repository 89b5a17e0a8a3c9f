"""Training examples from tool outputs, in the reference's JSON lines (see `clara_mlx.train.data`).

An output is cut into documents at line ends; a question goes with the document that holds its
evidence. Questions come from the rules, and from a `QuestionWriter` if one is given.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.probes.from_facts import probes
from clara_mlx.tool_outputs.rules import RULES
from clara_mlx.train.trajectories import ToolOutput

Stage = Literal["scp", "instruct", "retrieval", "end-to-end"]


class Asks(Protocol):
    """Something that writes questions, such as `clara_mlx.train.question_writer.QuestionWriter`."""

    def write(self, text: str) -> list[tuple[str, str]]:
        """Questions about ``text`` with answers that stand in it."""


@dataclass(frozen=True)
class Document:
    """A piece of a tool output with its questions and answers.

    Attributes:
        text: whole lines of the output.
        tool: the output's kind, as in `ToolOutput`.
        pairs: question and answer, each question once.
    """

    text: str
    tool: str | None
    pairs: tuple[tuple[str, str], ...]


def documents(
    outputs: Iterable[ToolOutput], characters: int = 800, writer: Asks | None = None
) -> list[Document]:
    """The documents that something can be asked about, each text once.

    Args:
        outputs: as `clara_mlx.train.trajectories.read` gives them, secrets masked.
        characters: most characters of a document; a longer line is a document of its own.
        writer: writes more questions; what the rules ask too stays as the rules have it.
    """
    known: dict[str, Document] = {}
    for output in outputs:
        asked = probes(output.text, output.tool) if output.tool in RULES else ()
        for start, end in pieces(output.text, characters):
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


def pieces(text: str, characters: int) -> Iterator[tuple[int, int]]:
    """Spans of whole lines that cover the text, each of at most so many characters if lines are."""
    start = end = 0
    for line in text.splitlines(keepends=True):
        if end > start and end + len(line) - start > characters:
            yield start, end
            start = end
        end += len(line)
    if end > start:
        yield start, end


def records(
    given: list[Document], stage: Stage, candidates: int = 1, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """One record a line of the stage's training file.

    ``scp`` asks all questions of a document in one record; the others ask one, over so many
    ``candidates``. The other candidates are outputs of other tools, where the question has no
    answer; ``pos_index`` says which one has it.

    Raises:
        ClaraError: there are too few documents of other tools for so many candidates.
    """
    rng = random.Random(seed)
    for document in given:
        if stage == "scp":
            questions, answers = zip(*document.pairs, strict=True)
            yield {
                "data_type": "qa",
                "question": list(questions),
                "answers": list(answers),
                "docs": [document.text],
            }
            continue
        others = [other.text for other in given if other.tool != document.tool]
        if len(others) < candidates - 1:
            raise ClaraError(
                f"{candidates} candidates need {candidates - 1} documents of tools other than "
                f"{document.tool}, but there are {len(others)}; read more logs, or ask for fewer"
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


def write(lines: Iterable[dict[str, Any]], file: Path) -> int:
    """Write records as JSON lines; returns how many.

    Raises:
        ClaraError: the file can't be written.
    """
    count = 0
    try:
        with file.open("w", encoding="utf-8") as out:
            for record in lines:
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
                count += 1
    except OSError as error:
        raise ClaraError(f"{file}: {error}") from error
    return count
