"""Training examples from JSON lines, checked in full before anything is trained.

A line holds one or several documents and the questions about them:

    {"docs": ["..."], "question": "What failed?", "answer": "test_load", "pos_index": [0]}
    {"docs": ["..."], "question": ["What?", "Where?"], "answers": ["this", "there"]}
    {"docs": ["..."], "data_type": "paraphrase", "answers": ["in other words"]}

The field names are the reference's: ``docs`` (or ``context``, ``content``); ``answer``,
``answers``, ``golden_answers`` or ``gold_answer``, of which the first counts; ``question``;
``data_type`` (``qa`` by default, or ``paraphrase``); ``pos_index``, the documents that hold the
answer, counted from 0. Other fields are ignored. An answer may be a number, true or false: it is
trained on as it is written there. The stage distil reads the documents only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from clara_mlx.errors import ClaraError, reason
from clara_mlx.model import chunking
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.prompts import PARAPHRASE_USERS, DecoderPrompt, Prompts
from clara_mlx.model.regular import check_input
from clara_mlx.model.tokenizer import TextTokenizer
from clara_mlx.train.stages import Stage

_DOCUMENTS = ("docs", "context", "content")
_ANSWERS = ("answer", "answers", "golden_answers", "gold_answer")
_ONE_ANSWER = ("golden_answers", "gold_answer")  # of several, the others say the same
_MOST_PROBLEMS = 20  # that an error lists

#: A document of more than doc_max_length tokens is refused, or its chunks become documents, which
#: are positive if the document was. It is never cut off.
LongDocuments = Literal["refuse", "chunk"]


@dataclass(frozen=True)
class Record:
    """One line: documents, and the questions about them with their answers."""

    where: str  # file:line
    documents: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]  # (question, answer); the question of a paraphrase is empty
    positives: tuple[int, ...]
    paraphrase: bool


@dataclass(frozen=True)
class Example:
    """One prompt to train on: documents by their numbers in the `Dataset`, question and answer."""

    where: str
    documents: tuple[int, ...]
    question: str
    answer: str
    positives: tuple[int, ...]  # numbers of documents, a part of ``documents``
    query: list[int] = field(repr=False)  # encoder input of the question; may be empty
    prompts: tuple[DecoderPrompt, ...] = field(repr=False)  # alternatives; may be none

    @property
    def tokens(self) -> int:
        """Tokens of the longest decoder prompt, or else of the question."""
        return max((len(prompt.ids) for prompt in self.prompts), default=len(self.query))


@dataclass(frozen=True)
class Dataset:
    """The tokenised examples of some files.

    Attributes:
        documents: The encoder input of each distinct document.
        groups: Lists of examples with the same documents, which share one encoding.
        chunked: Number of long documents that were split.
        hashes: SHA-256 of each file's lines, by the file's path.
    """

    documents: list[list[int]]
    groups: list[list[Example]]
    chunked: int
    hashes: Mapping[str, str]

    @property
    def examples(self) -> list[Example]:
        """All examples, group by group."""
        return [example for group in self.groups for example in group]


def read(
    files: Sequence[Path],
    stage: Stage,
    config: ClaraConfig,
    tokenizer: TextTokenizer,
    *,
    max_length: int,
    top_k: int,
    long_documents: LongDocuments = "refuse",
) -> Dataset:
    """Read and check files of examples for a stage.

    Args:
        files: The files, with JSON lines.
        stage: The stage that the examples are for.
        config: The model's config; ``doc_max_length`` limits documents and questions.
        tokenizer: The model's tokenizer.
        max_length: The most tokens of a prompt with its answer.
        top_k: Documents that the stage end-to-end chooses for a question.
        long_documents: What happens to documents that are too long.

    Raises:
        ClaraError: A file can't be read or has no examples, or lines are not usable; the error
            names each line with the reason.
    """
    reader = _Reader(
        stage,
        config,
        tokenizer,
        Prompts(config, tokenizer),
        min(max_length, config.window),
        top_k,
        long_documents,
    )
    problems: list[str] = []
    hashes: dict[str, str] = {}
    for file in files:
        for record in _records(file, problems, hashes, stage):
            try:
                reader.add(record)
            except ClaraError as error:
                problems.append(f"{record.where}: {error}")
    if problems:
        shown = problems[:_MOST_PROBLEMS]
        more = len(problems) - len(shown)
        raise ClaraError(
            f"lines that can't be trained on: {len(problems)}\n  "
            + "\n  ".join(shown)
            + (f"\n  and {more} more" if more else "")
        )
    if not reader.groups:
        raise ClaraError(f"{', '.join(map(str, files))}: there are no examples")
    return Dataset(reader.documents, list(reader.groups.values()), reader.chunked, hashes)


def _records(
    file: Path, problems: list[str], hashes: dict[str, str], stage: Stage
) -> Iterator[Record]:
    """The records of a file; a line that has none is added to the problems.

    At the end the file's hash is known. It is taken of the lines as they are read, because a pipe
    can be read only once.
    """
    digest = hashlib.sha256()
    try:
        check_input(file)
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                digest.update(line.encode())
                where = f"{file}:{number}"
                if not line.strip():
                    continue
                try:
                    # As a Decimal, a number keeps its digits: 1.50 stays 1.50.
                    yield _record(json.loads(line, parse_float=Decimal), where, stage)
                except (ValueError, RecursionError) as error:
                    problems.append(f"{where}: {error}")
    except (OSError, UnicodeDecodeError) as error:
        raise ClaraError(f"{file}: {reason(error)}") from error
    hashes[str(file)] = digest.hexdigest()


def _record(raw: Any, where: str, stage: Stage) -> Record:
    """A record from a line's JSON; a ValueError says what is wrong with it."""
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    name = next((name for name in _DOCUMENTS if isinstance(raw.get(name), list)), None)
    if name is None:
        raise ValueError(f"no list of documents ({', '.join(_DOCUMENTS)})")
    documents = _texts(raw[name], name)
    if stage.imitates:
        return Record(where, documents, pairs=(), positives=(), paraphrase=False)
    paraphrase = raw.get("data_type", "qa") == "paraphrase"
    if raw.get("data_type", "qa") not in ("qa", "paraphrase"):
        raise ValueError(f"data_type {raw['data_type']!r} is neither qa nor paraphrase")
    positives = raw.get("pos_index", [])
    if not isinstance(positives, list) or not all(
        type(i) is int and 0 <= i < len(documents) for i in positives
    ):
        shown = json.dumps(positives, default=str)
        raise ValueError(f"pos_index {shown} is not a list of numbers of its documents")
    pairs = (("", _answers(raw)[0]),) if paraphrase else _pairs(raw)
    return Record(
        where=where,
        documents=documents,
        pairs=pairs,
        positives=tuple(dict.fromkeys(positives)),
        paraphrase=paraphrase,
    )


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{name} is not a list of texts, or is empty")
    return tuple(value)


def _answers(raw: dict[str, Any]) -> tuple[str, ...]:
    """The answers of the first field that has any; a ValueError says what the fields hold."""
    problem = f"no {', '.join(_ANSWERS[:-1])} or {_ANSWERS[-1]}"
    for name in _ANSWERS:
        value = raw.get(name)
        several = value if isinstance(value, list) else [value]
        texts = tuple(text for text in map(_answer, several) if text is not None)
        if texts and len(texts) == len(several):
            return texts[:1] if name in _ONE_ANSWER else texts
        if name in raw and problem.startswith("no "):
            problem = f"{name} is {_shown(value)}, but an answer is a text, a number, true or false"
    raise ValueError(problem)


def _answer(value: Any) -> str | None:
    """An answer as a text; None if the value is none."""
    if isinstance(value, bool):
        return str(value).lower()  # as JSON writes it
    return str(value) if isinstance(value, str | int | Decimal) else None


def _shown(value: Any) -> str:
    """A value as an error shows it."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list with something else in it" if value else "an empty list"
    return "null" if value is None else str(value)


def _pairs(raw: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    question = raw.get("question")
    answers = _answers(raw)
    questions = (question,) if isinstance(question, str) else _texts(question, "question")
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions, but {len(answers)} answers")
    if not all(text.strip() for text in (*questions, *answers)):
        raise ValueError("a question or an answer is empty")
    return tuple(zip(questions, answers, strict=True))


@dataclass
class _Reader:
    """Turns records into examples."""

    stage: Stage
    config: ClaraConfig
    tokenizer: TextTokenizer
    prompts: Prompts
    max_length: int
    top_k: int
    long_documents: LongDocuments
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of documents, by text
    documents: list[list[int]] = field(default_factory=list)
    groups: dict[tuple[int, ...], list[Example]] = field(default_factory=dict)
    chunked: int = 0

    def add(self, record: Record) -> None:
        """Number the documents of a record, and add its examples.

        Raises:
            ClaraError: The stage can't use the record, or something in it is too long.
        """
        if record.paraphrase and self.stage.chooses:
            raise ClaraError(f"a paraphrase can't be used by the stage {self.stage.name}")
        if self.stage.name == "retrieval" and not record.positives:
            raise ClaraError("pos_index is missing or empty; this stage needs a positive document")
        numbered = [self._number(text, i) for i, text in enumerate(record.documents)]
        # A document that is given twice is one candidate, but it takes two slots of a prompt.
        documents = [number for numbers in numbered for number in numbers]
        if self.stage.chooses:
            documents = list(dict.fromkeys(documents))
            if self.stage.decodes and len(documents) < self.top_k:
                raise ClaraError(f"{len(documents)} different documents, but top_k is {self.top_k}")
        positives = {number for i in record.positives for number in numbered[i]}
        examples = []
        for question, answer, prompts in self._questions(record, len(documents)):
            for prompt in prompts:
                if len(prompt.ids) > self.max_length:
                    raise ClaraError(
                        f"prompt and answer have {len(prompt.ids)} tokens, but at most "
                        f"{self.max_length} are allowed (max_length, and the model's window)"
                    )
            query = self._encode_query(question) if self.stage.chooses else []
            examples.append(
                Example(
                    where=record.where,
                    documents=tuple(documents),
                    question=question,
                    answer=answer,
                    positives=tuple(sorted(positives)),
                    query=query,
                    prompts=prompts,
                )
            )
        self.groups.setdefault(tuple(documents), []).extend(examples)

    def _questions(
        self, record: Record, documents: int
    ) -> Iterator[tuple[str, str, tuple[DecoderPrompt, ...]]]:
        """Question, answer and prompts of each example that a record gives in this stage."""
        prompts = self.prompts
        if self.stage.imitates:
            yield "", "", ()
        elif record.paraphrase:
            answer = record.pairs[0][1]
            yield (
                "",
                answer,
                tuple(prompts.paraphrase(documents, user, answer) for user in PARAPHRASE_USERS),
            )
        elif self.stage.name == "scp":  # one prompt asks for all questions with answers
            text = "\n".join(f"Question: {q}\nAnswer: {a}" for q, a in record.pairs)
            yield "", text, (prompts.questions(documents, text),)
        else:
            slots = self.top_k if self.stage.chooses else documents
            for question, answer in record.pairs:
                made = prompts.answer(question, slots, answer) if self.stage.decodes else None
                yield question, answer, (made,) if made else ()

    def _encode_query(self, question: str) -> list[int]:
        ids = self.tokenizer.encode(question)
        if len(ids) > self.config.doc_max_length:
            raise ClaraError(
                f"the question has {len(ids)} tokens, but the query reasoner reads "
                f"{self.config.doc_max_length}"
            )
        return self.prompts.encoder_input(ids)

    def _number(self, text: str, position: int) -> tuple[int, ...]:
        """Numbers of a document, or of its chunks, which are added if they are new."""
        if text not in self.numbers:
            limit = self.config.doc_max_length
            pieces = [self.tokenizer.encode(text)]
            if len(pieces[0]) > limit:
                if self.long_documents == "refuse":
                    raise ClaraError(
                        f"document {position} has {len(pieces[0])} tokens, but one chunk holds "
                        f'{limit}; shorten it, or set long_documents = "chunk"'
                    )
                self.chunked += 1
                chunks = chunking.split(text, self.tokenizer, limit)
                pieces = [self.tokenizer.encode(text[c.start : c.end]) for c in chunks]
            first = len(self.documents)
            self.documents += [self.prompts.encoder_input(ids) for ids in pieces]
            self.numbers[text] = tuple(range(first, len(self.documents)))
        return self.numbers[text]
