"""A probe asks one fact of a tool's output; an output is a text with its probes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clara_mlx.errors import ClaraError

KINDS = ("path", "number", "identifier", "message")
"""Answer kinds. Versions, dates, sizes and durations are numbers; branches, authors, tests and
exception types are identifiers; free text and values with spaces are messages."""

ANSWER_CHARACTERS = 60
"""No answer is longer than this."""

_NUMBER = re.compile(r"[-+]?v?\d[\d.,:/+-]*( ?([kKMGTµmn]i?B?|[hms]|ms|[BC%]))?")

_FILE = re.compile(r"\w\.(?!(?:com|org|net|io|dev|local)$)[a-z]{1,5}$")


def kind_of(value: str) -> str:
    """The answer kind of a value that could be anything, such as one of a config file.

    A number has digits, perhaps with signs, a unit or the marks of dates and versions; a path
    has a slash or a file's ending (not a host's) and no blank; anything else with a
    blank is a message.
    """
    if _NUMBER.fullmatch(value):
        return "number"
    if " " in value:
        return "message"
    if "/" in value or _FILE.search(value):
        return "path"
    return "identifier"


class ProbeError(ClaraError):
    """A probe's answer, kind or span does not fit the output that it asks about."""


@dataclass(frozen=True)
class Probe:
    """One question with its exact answer.

    Attributes:
        question: short, answerable from the output's text alone.
        answer: 1 to `ANSWER_CHARACTERS` characters on one line, no blanks around it.
        kind: one of `KINDS`.
        start: first character of the evidence in the output's text: the answer itself where it
            stands there, else the line or lines that it follows from.
        end: one past the last character of the evidence.

    Raises:
        ProbeError: for an empty, long, padded or multi-line answer, an unknown kind or an empty
            span.
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
                "characters on one line, without blanks around it; choose a shorter fact"
            )
        if self.kind not in KINDS:
            raise ProbeError(f"{self.kind!r} is no answer kind; use one of {', '.join(KINDS)}")
        if not 0 <= self.start < self.end:
            raise ProbeError(
                f"the evidence of {self.question!r} spans {self.start} to {self.end}; "
                "give the first character and one past the last"
            )


@dataclass(frozen=True)
class Output:
    """What a tool printed, and probes of it.

    Attributes:
        tool: the tool's name, such as ``pytest`` or ``git-log``.
        text: the output as printed.
        probes: questions that this text alone answers; no two ask the same question.

    Raises:
        ProbeError: when a probe's span ends after the text, or a question occurs twice.
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
