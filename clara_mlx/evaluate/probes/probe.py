"""A probe asks for one fact of a tool's output; an output is a text with its probes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clara_mlx.errors import ClaraError

KINDS = ("path", "number", "identifier", "message")
"""The kinds of answers. Versions, dates, sizes and durations are numbers; branches, authors, tests
and exception types are identifiers; free text and values with spaces are messages."""

ANSWER_CHARACTERS = 60
"""Greatest length of an answer."""

# 1.3G
_NUMBER = re.compile(r"[-+]?v?\d[\d.,:/+-]*( ?([kKMGTµmn]i?B?|[hms]|ms|[BC%]))?")
# notes.md
_FILE = re.compile(r"\w\.(?!(?:com|org|net|io|dev|local)$)[a-z]{1,5}$")


def kind_of(value: str) -> str:
    """The kind of an answer that could be anything, such as a value in a configuration file.

    A number has digits, perhaps with signs, a unit, or the marks of dates and versions. A path has
    a slash or ends as a file does, not as a host does, and has no blank. Anything else is a message
    if it has a blank, and an identifier if not.
    """
    if _NUMBER.fullmatch(value):
        return "number"
    if " " in value:
        return "message"
    if "/" in value or _FILE.search(value):
        return "path"
    return "identifier"


class ProbeError(ClaraError):
    """The answer, kind or span of a probe does not fit the output that it asks about."""


@dataclass(frozen=True)
class Probe:
    """One question with its exact answer.

    Attributes:
        question: A short question that the output's text alone answers.
        answer: 1 to `ANSWER_CHARACTERS` characters on one line, without blanks around them.
        kind: One of `KINDS`.
        start: First character of the evidence in the output's text: of the answer itself if it is
            printed, else of the lines that it follows from.
        end: One past the last character of the evidence.

    Raises:
        ProbeError: The answer is empty, too long, padded or of several lines, the kind is unknown,
            or the span is empty.
    """

    question: str
    answer: str
    kind: str
    start: int
    end: int

    def __post_init__(self) -> None:
        answer = self.answer
        if not 0 < len(answer) <= ANSWER_CHARACTERS or answer != answer.strip() or "\n" in answer:
            raise ProbeError(
                f"the answer {answer!r} to {self.question!r} must be 1 to {ANSWER_CHARACTERS} "
                "characters on one line, without spaces around it; choose a shorter fact"
            )
        if self.kind not in KINDS:
            raise ProbeError(
                f"{self.kind!r} is not a kind of answer; use one of {', '.join(KINDS)}"
            )
        if not 0 <= self.start < self.end:
            raise ProbeError(
                f"the evidence of {self.question!r} spans {self.start} to {self.end}; "
                "give the first character and one past the last"
            )


@dataclass(frozen=True)
class Output:
    """What a tool printed, with probes of it.

    Attributes:
        tool: Name of the tool, such as ``pytest`` or ``git-log``.
        text: The output as printed.
        probes: Questions that this text alone answers; no two ask the same.

    Raises:
        ProbeError: The span of a probe ends after the text, or a question occurs twice.
    """

    tool: str
    text: str
    probes: tuple[Probe, ...]

    def __post_init__(self) -> None:
        for probe in self.probes:
            if probe.end > len(self.text):
                raise ProbeError(
                    f"the evidence of {probe.question!r} ends at {probe.end}, but the {self.tool} "
                    f"output has {len(self.text)} characters; give spans in the final text"
                )
        questions = [probe.question for probe in self.probes]
        if len(set(questions)) != len(questions):
            twice = next(question for question in questions if questions.count(question) > 1)
            raise ProbeError(
                f"{twice!r} is asked twice of one {self.tool} output; "
                "name the file or key in the question, or leave one out"
            )
