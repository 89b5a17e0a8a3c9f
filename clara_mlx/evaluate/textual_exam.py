"""A compressor that makes texts shorter, in the exam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from clara_mlx.compressors.compressor import TextualCompressor, Tokens
from clara_mlx.errors import Progress
from clara_mlx.evaluate.exam import Exam
from clara_mlx.evaluate.timed import Timed


@dataclass(frozen=True)
class Shortened:
    """Every output within its budget.

    Attributes:
        exam: The outputs and questions.
        texts: What is left of each output before anybody asks.
        asked: What is left of each question's output, made for that question; if the compressor
            uses no question, what was left before.
        sizes: Tokens of each of ``texts``.
        over: Number of texts that exceed their budget.
        shortening: How long ``texts`` took.
        shortening_asked: How long ``asked`` took.
    """

    exam: Exam
    texts: list[str]
    asked: list[str]
    sizes: list[int]
    over: int
    shortening: Timed
    shortening_asked: Timed

    def to_dict(self, tokens: Tokens) -> dict[str, Any]:
        """What was kept, and at which rate in the given tokens of the outputs; for JSON."""
        exam = self.exam
        kept = exam.answered([self.texts[one.output] for one in exam.questions])
        return {
            "rate": exam.rates(tokens, self.sizes),
            "over_budget": self.over,
            "bytes_left": self._bytes_left,
            "kept": exam.shares(kept),
            "asked": exam.shares(exam.answered(self.asked)),
            "shorten": self.shortening.to_dict(),
            "shorten_asked": self.shortening_asked.to_dict(),
        }

    @property
    def _bytes_left(self) -> float:
        """Bytes of what is left for each byte of the outputs."""
        left = sum(len(text.encode("utf-8", "replace")) for text in self.texts)
        return left / max(1, self.exam.text_bytes)


def shorten_all(
    compressor: TextualCompressor,
    exam: Exam,
    budgets: Sequence[float],
    tokens: Tokens,
    progress: Progress,
) -> Shortened:
    """Shorten every output, without a question and for each of its questions.

    Args:
        compressor: The compressor.
        exam: The outputs and questions.
        budgets: The most tokens of each output.
        tokens: What budgets are counted by.
        progress: Called with each output and question.
    """
    most = [ceil(budget) for budget in budgets]
    plain, asked = Timed(), Timed()
    texts, shown = [], []
    for number, output in enumerate(exam.outputs):
        progress(number, len(exam.outputs), "shortening")
        with plain.run(len(tokens.encode(output.text))):
            texts.append(compressor.shorten(output.text, most[number], tokens))
    for number, one in enumerate(exam.questions):
        if not compressor.uses_question:
            shown.append(texts[one.output])
            continue
        progress(number, len(exam.questions), "shortening for questions")
        text = exam.outputs[one.output].text
        with asked.run():
            shown.append(compressor.shorten(text, most[one.output], tokens, question=one.question))
    sizes = [len(tokens.encode(text)) for text in texts]
    over = sum(size > budget for size, budget in zip(sizes, most, strict=True))
    return Shortened(exam, texts, shown, sizes, over, plain, asked)


def measure_textual(
    compressor: TextualCompressor,
    exam: Exam,
    rates: Sequence[float],
    tokens: Tokens,
    progress: Progress,
) -> dict[str, Any]:
    """What it keeps at each rate, how long that takes, and what would be stored; for JSON."""
    counts = [len(tokens.encode(output.text)) for output in exam.outputs]
    rows = []
    shortened = None
    for rate in rates:
        budgets = [count / rate for count in counts]
        shortened = shorten_all(compressor, exam, budgets, tokens, progress)
        rows.append({"rate_wanted": rate, **shortened.to_dict(tokens)})
    return {
        "in_place": rows,
        "uses_question": compressor.uses_question,
        "compress": shortened.shortening.to_dict() if shortened else {"runs": 0},
    }
