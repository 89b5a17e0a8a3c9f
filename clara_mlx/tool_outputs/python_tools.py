"""The rules for what Python itself and its checkers print: tracebacks, ruff and mypy."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from clara_mlx.tool_outputs.facts import Facts
from clara_mlx.tool_outputs.lines import Line, Lines, Matched

#   File "/project/store.py", line 16, in take
_FRAME = re.compile(r'  File "(?P<path>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?$')
# json.decoder.JSONDecodeError: Expecting value
EXCEPTION = re.compile(
    # A name in capitals, or struct.error and socket.timeout.
    r"(?P<kind>(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*|(?<=\.)(?:error|timeout)))(?:: (?P<message>.+))?$"
)
# First words of lines under a traceback that only look like the name of an exception.
_NOT_EXCEPTIONS = {"Traceback", "During", "The", "Note", "INFO", "DEBUG", "WARNING", "ERROR"}
_CAUSE = "The above exception was the direct cause of the following exception:"
# How lines begin that are read.
# Traceback (most recent call last):
_TRACE_LINE = re.compile(
    r'  File "|The above exception was|Traceback \(most'
    r"|(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*|error|timeout)(?:: |$)"
)


@dataclass
class _Trace:
    """One traceback: its frames, outermost first, and the line that ends it."""

    frames: list[Matched] = field(default_factory=list)
    end: Matched | None = None
    is_whole: bool = False  # the message has one line only


def traceback(facts: Facts, lines: Lines) -> None:
    """Read the tracebacks of Python; of a chain, the last one is the error."""
    for trace in _split_traces(facts, lines):
        if trace.frames:
            _add_frames(facts, trace.frames)
        if trace.end:
            line, match = trace.end
            facts.add("exception", line, match, "kind")
            if trace.is_whole:
                facts.add_message(line, match)
            else:
                facts.mark_unread("error_message")


def _split_traces(facts: Facts, lines: Lines) -> list[_Trace]:
    """The tracebacks of an output without those that are another one's cause.

    The exceptions of causes are added to ``facts`` on the way.
    """
    done: list[_Trace] = []
    trace = _Trace()
    causes = {number for number, text in enumerate(lines.texts) if text == _CAUSE}
    for number, text in enumerate(lines.texts):
        if not text or not _TRACE_LINE.match(text):
            continue
        if frame := _FRAME.match(text):
            if trace.end:
                done.append(trace)
                trace = _Trace()
            trace.frames.append((lines[number], frame))
        elif number in causes:
            if trace.end:
                facts.add("cause", *trace.end, "kind")
            trace = _Trace()  # the cause is not the error
        elif text.startswith("Traceback (most recent call last):"):
            if trace.end:
                done.append(trace)
            trace = _Trace()
        elif not trace.end and (trace.frames or (causes and causes & {number + 1, number + 2})):
            end = EXCEPTION.match(text)
            if end and end["kind"] not in _NOT_EXCEPTIONS:
                trace.end = lines[number], end
                trace.is_whole = not lines.text_after(number).strip()
    return [*done, trace]


def _add_frames(facts: Facts, frames: list[Matched]) -> None:
    if any(match["path"].startswith("<") for _, match in (frames[0], frames[-1])):
        return  # <stdin> and <string> are not files
    facts.add_all(*frames[-1], error_file="path", error_line="line")
    if frames[-1][1]["function"] != "<module>":
        facts.add("function", *frames[-1], "function")
    if len(frames) > 1:
        facts.add_all(*frames[0], caller_file="path", caller_line="line")


# inventory/store.py:3:8: F401 `os` imported but unused
_LOCATED = re.compile(r"(?P<path>[^\s:]+):(?P<line>\d+)(?::(?P<column>\d+))?: (?P<rest>.+)$")
# F401 [*] `os` imported but unused
_RUFF_FINDING = re.compile(r"(?P<code>[A-Z]{1,5}\d{3,4}) (?:\[\*\] )?(?P<message>.+)$")
#  --> inventory/store.py:3:8
_RUFF_ARROW = re.compile(r" *--> (?P<path>[^\s:]+):(?P<line>\d+):(?P<column>\d+)$")
# Found 3 errors (1 fixed, 2 remaining).
_RUFF_FOUND = re.compile(r"Found (?P<errors>\d+) errors?(?: \(\d+ fixed, \d+ remaining\))?\.$")
# [*] 1 fixable with the `--fix` option.
_RUFF_FIXABLE = re.compile(r"\[\*\] (?P<fixable>\d+) fixable with (?:the )?`--fix`")
# Would reformat: inventory/price.py
_RUFF_WOULD_REFORMAT = re.compile(r"Would reformat: (?P<reformatted_file>\S+)$")
_RUFF_UNFORMATTED = "unformatted: File would be reformatted"
# 2 files would be reformatted, 5 files already formatted
_RUFF_REFORMATTED = re.compile(
    r"(?P<reformatted>\d+) files? (?:would be )?reformatted(?:, (?P<formatted>\d+) files? "
    r"(?:already formatted|left unchanged))?$"
)
_RUFF = (_RUFF_FOUND, _RUFF_FIXABLE, _RUFF_WOULD_REFORMAT, _RUFF_REFORMATTED)
# How lines begin that one of these patterns matches.
# Found 3 errors (1 fixed, 2 remaining).
_RUFF_LINE = re.compile(
    r"[^\s:]+:\d+:| *--> |[A-Z]{1,5}\d{3,4} |Found \d|\[\*\] \d|Would reformat: "
    r"|\d+ files? "
)


def ruff(facts: Facts, lines: Lines) -> None:
    """Read ruff check, in its full and concise formats, and ruff format --check."""
    heading: Matched | None = None
    for number, line in lines.matching(_RUFF_LINE):
        above = lines.texts[number - 1]
        if located := _LOCATED.match(line.text):
            finding = _RUFF_FINDING.match(line.text, located.start("rest"))
            if finding:
                _add_finding(facts, line, located, line, finding)
        elif (arrow := _RUFF_ARROW.match(line.text)) and above == _RUFF_UNFORMATTED:
            facts.add("reformatted_file", line, arrow, "path")
        elif arrow and heading:
            _add_finding(facts, line, arrow, *heading)
            heading = None
        elif finding := _RUFF_FINDING.match(line.text):
            heading = line, finding
        else:
            facts.add_first(line, _RUFF)


def _add_finding(
    facts: Facts, line: Line, place: re.Match[str], named: Line, finding: re.Match[str]
) -> None:
    """Add a finding: ``place`` in ``line`` says where, ``finding`` in ``named`` says what."""
    path = place["path"]
    facts.add_all(line, place, error_file="path", error_line="line", error_column="column")
    facts.add("error_line_in", line, place, "line", path=path)
    facts.add("error_column_in", line, place, "column", path=path)
    facts.add("error_code", named, finding, "code")
    facts.add("error_code_in", named, finding, "code", path=path)
    facts.add_message(named, finding)
    facts.add("error_message_in", named, finding, "message", path=path)


# error: Name "total" is not defined  [name-defined]
_MYPY_FINDING = re.compile(r"error: (?P<message>.+?)(?:  \[(?P<code>[a-z-]+)\])?$")
# Found 1 error in 1 file (checked 3 source files)
_MYPY_FOUND = re.compile(
    r"Found (?P<errors>\d+) errors? in (?P<error_files>\d+) files? "
    r"\((?:checked (?P<checked_files>\d+) source files?|errors prevented further checking)\)$"
)
# Success: no issues found in 3 source files
_MYPY_SUCCESS = re.compile(r"Success: no issues found in (?P<checked_files>\d+) source files?$")
# How lines begin that one of these patterns matches.
# Success: no issues found in 3 source files
_MYPY_LINE = re.compile(r"[^\s:]+:\d+:|Found \d|Success: ")


def mypy(facts: Facts, lines: Lines) -> None:
    """Read mypy: a line for each error, and the last line."""
    for _, line in lines.matching(_MYPY_LINE):
        if located := _LOCATED.match(line.text):
            finding = _MYPY_FINDING.match(line.text, located.start("rest"))
            if finding:
                _add_finding(facts, line, located, line, finding)
        else:
            facts.add_first(line, (_MYPY_FOUND, _MYPY_SUCCESS))
