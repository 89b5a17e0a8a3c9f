"""A compressor that makes vectors, in the exam: its own decoder answers from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from clara_mlx.compressors.compressor import (
    Floats,
    LatentCompressor,
    TextualCompressor,
    Tokens,
)
from clara_mlx.errors import Progress, PromptTooLong
from clara_mlx.evaluate.exam import Exam
from clara_mlx.evaluate.textual_exam import Shortened, shorten_all
from clara_mlx.evaluate.timed import Timed
from clara_mlx.model import chunking

# Chunks that are encoded together.
_BATCH = 64

# Tokens of the prompts that are read together, so that memory does not grow with their number.
_GROUP_TOKENS = 16_384


class LatentExam:
    """Encodes all outputs of an exam, and asks their questions.

    Args:
        compressor: The compressor.
        exam: The outputs and questions.
        tokens: What the reasoner's tokens are counted by.
        max_tokens: Largest number of tokens in an answer.
        progress: Called with each output and question.
    """

    def __init__(
        self,
        compressor: LatentCompressor,
        exam: Exam,
        tokens: Tokens,
        max_tokens: int,
        progress: Progress,
    ) -> None:
        self._compressor = compressor
        self._exam = exam
        self._tokens = tokens
        self._max_tokens = max_tokens
        self._progress = progress
        self._encoding = Timed()
        self._own_tokens = 0  # of all outputs, by the compressor's own tokenizer
        self._documents = list(self._encode())  # the vectors of each output's chunks

    @property
    def positions(self) -> list[int]:
        """Decoder positions that the vectors of each output take."""
        beside = self._compressor.separators
        return [sum(len(one) + beside for one in documents) for documents in self._documents]

    def _encode(self) -> Iterator[list[Floats]]:
        limit, tokenizer = self._compressor.chunk_tokens, self._compressor.tokenizer
        for number, output in enumerate(self._exam.outputs):
            self._progress(number, len(self._exam.outputs), "compressing")
            chunks = list(chunking.split(output.text, tokenizer, limit))
            texts = [output.text[chunk.start : chunk.end] for chunk in chunks]
            self._own_tokens += sum(chunk.tokens for chunk in chunks)
            made: list[Floats] = []
            with self._encoding.run(len(self._tokens.encode(output.text))):
                for start in range(0, len(texts), _BATCH):
                    made += self._compressor.encode_chunks(texts[start : start + _BATCH])
            yield made

    def measure(self) -> dict[str, Any]:
        """What it keeps, and how long that takes; for JSON."""
        vectors = sum(len(one) for documents in self._documents for one in documents)
        answering = Timed()
        answers = list(self._answers(answering))
        exam = self._exam
        in_place = {
            "rate": exam.rates(self._tokens, self.positions),
            "own_tokens_per_vector": self._own_tokens / max(1, vectors),
            "kept": exam.shares(exam.answered(answers)),
            "answer": answering.to_dict(),
            "answer_tokens": _mean([len(self._tokens.encode(answer)) for answer in answers]),
        }
        return {"in_place": [in_place], "compress": self._encoding.to_dict()}

    def _answers(self, timed: Timed) -> Iterator[str]:
        """The decoder's answer to each question, from all chunks of its output."""
        questions = self._exam.questions
        for number, one in enumerate(questions):
            self._progress(number, len(questions), "answering")
            with timed.run():
                answer = "\n".join(self._passes(one.question, self._documents[one.output]))
            yield answer

    def _passes(self, question: str, documents: list[Floats]) -> Iterator[str]:
        """The answers to a question, one for each part of the documents that fits the decoder."""
        room = max(1, self._compressor.documents_that_fit(question, self._max_tokens))
        for start in range(0, len(documents), room):
            part = documents[start : start + room]
            yield "".join(self._compressor.stream_answer(question, part, self._max_tokens))

    def against(self, rival: TextualCompressor) -> dict[str, Any]:
        """What a textual compressor keeps in as many positions of this one's decoder; for JSON."""
        tokens = self._compressor.tokenizer
        shortened = shorten_all(rival, self._exam, self.positions, tokens, self._progress)
        found = {"name": rival.name, "uses_question": rival.uses_question}
        found |= shortened.to_dict(self._tokens)
        return found | self._read(shortened)

    def _read(self, shortened: Shortened) -> dict[str, Any]:
        """What this compressor's decoder answers from the shortened texts; empty if it can't.

        It reads what was made for the question, as text in the place of its own vectors. Texts
        that exceed their budget would have more positions than these, and are not read.
        """
        from clara_mlx.evaluate.batched import Reading, generate_answers
        from clara_mlx.model.clara import Clara

        clara = self._compressor
        if not isinstance(clara, Clara) or shortened.over:
            return {}
        questions = self._exam.questions
        readings: dict[int, Reading] = {}
        for number, (one, text) in enumerate(zip(questions, shortened.asked, strict=True)):
            prompt = clara.prompts.answer(one.question, 0, text=clara.tokenizer.encode(text))
            with suppress(PromptTooLong):
                clara.prompts.check_window(prompt, self._max_tokens)
                readings[number] = Reading(prompt, None)
        answers = [""] * len(questions)
        done = 0
        for group in _groups({number: len(one.prompt.ids) for number, one in readings.items()}):
            given = generate_answers(clara, [readings[n] for n in group], self._max_tokens)
            for which, answer in given:
                answers[group[which]] = answer
            done += len(group)
            self._progress(done, len(readings), "reading texts")
        return {
            "read": self._exam.shares(self._exam.answered(answers)),
            "read_too_long": len(questions) - len(readings),
        }


def _groups(sizes: dict[int, int]) -> Iterator[list[int]]:
    """Prompts in groups of similar length, none of more than `_GROUP_TOKENS` with its padding."""
    group: list[int] = []
    for number, size in sorted(sizes.items(), key=lambda pair: pair[1]):
        if group and size * (len(group) + 1) > _GROUP_TOKENS:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def _mean(values: Sequence[int]) -> float | None:
    return float(np.mean(values)) if values else None
