"""The exam that compressors sit side by side: outputs, questions about them, and what counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clara_mlx.compressors.compressor import Tokens
from clara_mlx.errors import ClaraError, reason
from clara_mlx.evaluate import metrics
from clara_mlx.evaluate.sets import SETS, ProbeSet

#: The name of the set of recorded outputs.
RECORDED = "recorded"

#: What counts, as a report prints it.
KEPT = (
    "The expected answer stands in what takes the output's place, character for character, and not "
    "as a part of a longer word; of a compressor that answers, in its answer. Questions whose "
    "answer stands on several lines of their output are left out of the table, because it could be "
    "another line that was kept; the raw results have the shares with them, too."
)


@dataclass(frozen=True)
class ExamOutput:
    """What a tool printed: the set it belongs to, the tool's name, and the text."""

    set: str
    tool: str
    text: str


@dataclass(frozen=True)
class Question:
    """One question with its exact answer.

    Attributes:
        output: The number of its output in the exam.
        question: The question.
        answer: The exact answer, a part of the output's text.
        kind: The kind of answer, or of output where that is not known.
        clear: Whether the answer stands on one line of the output only.
    """

    output: int
    question: str
    answer: str
    kind: str
    clear: bool


@dataclass
class Exam:
    """Outputs, and the questions about them.

    Attributes:
        outputs: The outputs, set by set.
        questions: The questions, in the order of their outputs.
        too_long: By set, the number of questions left out because their output is too long.
    """

    outputs: list[ExamOutput] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    too_long: dict[str, int] = field(default_factory=dict)

    def add(
        self, output: ExamOutput, asked: Iterable[tuple[str, str, str]], longest: int | None
    ) -> None:
        """Add an output with (question, answer, kind) for each question about it.

        An output of more than ``longest`` characters is counted, and left out.
        """
        pairs = list(asked)
        if longest is not None and len(output.text) > longest:
            self.too_long[output.set] = self.too_long.get(output.set, 0) + len(pairs)
            return
        number = len(self.outputs)
        self.outputs.append(output)
        for question, answer, kind in pairs:
            clear = len(lines_with(answer, output.text)) == 1
            self.questions.append(Question(number, question, answer, kind, clear))

    def add_set(self, probes: ProbeSet, longest: int | None = None) -> None:
        """Add the outputs and probes of a set."""
        for output in probes.outputs:
            asked = ((probe.question, probe.answer, probe.kind) for probe in output.probes)
            self.add(ExamOutput(probes.name, output.tool, output.text), asked, longest)

    def add_recorded(self, file: Path, longest: int | None = None) -> None:
        """Add recorded outputs: JSON lines with ``text`` and ``questions``, see bench/README.md.

        Raises:
            ClaraError: The file can't be read, or a line has another format.
        """
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ClaraError(f"{file}: {reason(error)}") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                kind, text = str(row.get("kind", "output")), row["text"]
                asked = [(one["question"], one["answer"], kind) for one in row["questions"]]
                for _, answer, _ in asked:
                    if not answer or answer not in text:
                        raise ValueError(f"the text does not contain the answer {answer!r}")
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                raise ClaraError(
                    f"{file}:{number}: not a recorded output: {error!r}; a line is "
                    '{"text": ..., "questions": [{"question": ..., "answer": ...}]}'
                ) from error
            self.add(ExamOutput(RECORDED, kind, text), asked, longest)

    @property
    def sets(self) -> list[str]:
        """The names of the sets, in their order."""
        return list(dict.fromkeys(output.set for output in self.outputs))

    def describe(self) -> dict[str, Any]:
        """Counts of each set, ready for JSON."""
        described = {}
        for name in self.sets:
            asked = [one for one in self.questions if self.outputs[one.output].set == name]
            texts = [output.text for output in self.outputs if output.set == name]
            described[name] = {
                "what": SETS.get(name, "outputs of real tools, recorded elsewhere"),
                "outputs": len(texts),
                "characters": sum(map(len, texts)),
                "questions": len(asked),
                "clear": sum(one.clear for one in asked),
                "too_long": self.too_long.get(name, 0),
            }
        return described

    def shares(self, kept: Sequence[bool]) -> dict[str, Any]:
        """By set, the share of the questions whose answer was kept, ready for JSON."""
        found = {}
        for name in self.sets:
            of_set = [
                (one, float(value))
                for one, value in zip(self.questions, kept, strict=True)
                if self.outputs[one.output].set == name
            ]
            clear = [(one, value) for one, value in of_set if one.clear]
            kinds = sorted({one.kind for one, _ in clear})
            found[name] = {
                "clear": _share(clear),
                "all": _share(of_set),
                "by_kind": {
                    kind: _share([pair for pair in clear if pair[0].kind == kind]) for kind in kinds
                },
            }
        return found

    def answered(self, answers: Sequence[str]) -> list[bool]:
        """Whether the expected answer stands in the one given, for each question."""
        pairs = zip(self.questions, answers, strict=True)
        return [stands_in(one.answer, answer) for one, answer in pairs]

    def rates(self, tokens: Tokens, sizes: Sequence[int]) -> dict[str, float]:
        """By set and of ``all``, the tokens of the outputs for each that is left, or each position.

        Args:
            tokens: What the outputs' tokens are counted by.
            sizes: What is left of each output, in tokens or in positions of a decoder.
        """
        source: Counter[str] = Counter()
        left: Counter[str] = Counter()
        for output, size in zip(self.outputs, sizes, strict=True):
            for name in (output.set, "all"):
                source[name] += len(tokens.encode(output.text))
                left[name] += size
        return {name: source[name] / max(1, left[name]) for name in source}

    @property
    def text_bytes(self) -> int:
        """The bytes of all outputs."""
        return sum(len(output.text.encode("utf-8", "replace")) for output in self.outputs)

    def to_json(self) -> dict[str, Any]:
        """The exam as a value for JSON, to be read in another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Exam:
        """The opposite of `to_json`."""
        return cls(
            [ExamOutput(**one) for one in value["outputs"]],
            [Question(**one) for one in value["questions"]],
            value["too_long"],
        )


def _share(pairs: list[tuple[Question, float]]) -> dict[str, Any] | None:
    """A share with its interval, and what it is of; None without questions.

    Questions about a single output are right or wrong together, for all that is known, so they
    count as one.
    """
    if not pairs:
        return None
    outputs = [one.output for one, _ in pairs]
    estimate = metrics.share(outputs, [value for _, value in pairs])
    if len(set(outputs)) == 1:
        estimate = metrics.wilson(estimate.mean, 1)
    return {"questions": len(pairs), "outputs": len(set(outputs)), **asdict(estimate)}


def stands_in(answer: str, text: str) -> bool:
    """Whether an answer stands in a text, and not as a part of a longer word."""
    return bool(lines_with(answer, text, most=1))


def lines_with(answer: str, text: str, most: int | None = None) -> set[int]:
    """Numbers of the lines on which an answer stands, from 0; at most ``most`` of them."""
    found: set[int] = set()
    at = counted = line = 0
    while (at := text.find(answer, at)) >= 0 and len(found) != most:
        end = at + len(answer)
        if _is_border(text, at) and _is_border(text, end):
            line += text.count("\n", counted, at)
            counted = at
            found.add(line)
        at += 1
    return found


def _is_border(text: str, at: int) -> bool:
    """Whether a word may begin or end before this character."""
    return at in (0, len(text)) or not (_in_word(text[at - 1]) and _in_word(text[at]))


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
