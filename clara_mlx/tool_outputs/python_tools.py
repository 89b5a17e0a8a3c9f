"""Facts in what Python itself and its checkers print: tracebacks, ruff and mypy."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from clara_mlx.tool_outputs.facts import Facts, Line

_FRAME = re.compile(r'  File "(?P<path>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?$')
# Besides ValueError and json.JSONDecodeError there are struct.error and socket.timeout.
EXCEPTION = re.compile(
    r"(?P<kind>(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*|(?<=\.)(?:error|timeout)))(?:: (?P<message>.+))?$"
)
_NO_EXCEPTION = {"Traceback", "During", "The", "Note", "INFO", "DEBUG", "WARNING", "ERROR"}
_CAUSE = "The above exception was the direct cause of the following exception:"


@dataclass
class _Trace:
    """One traceback: its frames, outermost first, and the line that ends it."""

    frames: list[tuple[Line, re.Match[str]]] = field(default_factory=list)
    end: tuple[Line, re.Match[str]] | None = None
    whole: bool = False  # the message has one line


def traceback(facts: Facts, lines: list[Line]) -> None:
    """Python's tracebacks; of a chain, the last one is the error."""
    for trace in _traces(facts, lines):
        if trace.frames:
            _add_frames(facts, trace.frames)
        if trace.end:
            line, match = trace.end
            facts.add("exception", line, match, "kind")
            if trace.whole:
                facts.add_message(line, match)
            else:
                facts.mark_unread("error_message")


def _traces(facts: Facts, lines: list[Line]) -> list[_Trace]:
    done: list[_Trace] = []
    trace = _Trace()
    for number, line in enumerate(lines):
        frame = _FRAME.match(line.text)
        if frame:
            if trace.end:
                done.append(trace)
                trace = _Trace()
            trace.frames.append((line, frame))
        elif line.text == _CAUSE:
            if trace.end:
                facts.add("cause", *trace.end, "kind")
            trace = _Trace()  # the cause is not the error
        elif line.text.startswith("Traceback (most recent call last):"):
            if trace.end:
                done.append(trace)
            trace = _Trace()
        elif (trace.frames or _announces_cause(lines, number)) and not trace.end:
            end = EXCEPTION.match(line.text)
            if end and end["kind"] not in _NO_EXCEPTION:
                trace.end = line, end
                following = lines[number + 1].text if number + 1 < len(lines) else ""
                trace.whole = not following.strip()
    return [*done, trace]


def _announces_cause(lines: list[Line], number: int) -> bool:
    return any(line.text == _CAUSE for line in lines[number + 1 : number + 3])


def _add_frames(facts: Facts, frames: list[tuple[Line, re.Match[str]]]) -> None:
    if any(match["path"].startswith("<") for _, match in (frames[0], frames[-1])):
        return  # <stdin> and <string> are no files
    facts.add("error_file", *frames[-1], "path")
    facts.add("error_line", *frames[-1], "line")
    if frames[-1][1]["function"] != "<module>":
        facts.add("function", *frames[-1], "function")
    if len(frames) > 1:
        facts.add("caller_file", *frames[0], "path")
        facts.add("caller_line", *frames[0], "line")


_LOCATED = re.compile(r"(?P<path>[^\s:]+):(?P<line>\d+)(?::(?P<column>\d+))?: (?P<rest>.+)$")
_RUFF_REST = re.compile(r"(?P<code>[A-Z]{1,5}\d{3,4}) (?:\[\*\] )?(?P<message>.+)$")
_RUFF_ARROW = re.compile(r" *--> (?P<path>[^\s:]+):(?P<line>\d+):(?P<column>\d+)$")
_RUFF_FOUND = re.compile(r"Found (?P<errors>\d+) errors?(?: \(\d+ fixed, \d+ remaining\))?\.$")
_RUFF_FIXABLE = re.compile(r"\[\*\] (?P<fixable>\d+) fixable with (?:the )?`--fix`")
_REFORMAT = re.compile(r"Would reformat: (?P<path>\S+)$")
_UNFORMATTED = "unformatted: File would be reformatted"
_REFORMATTED = re.compile(
    r"(?P<reformatted>\d+) files? (?:would be )?reformatted(?:, (?P<formatted>\d+) files? "
    r"(?:already formatted|left unchanged))?$"
)


def ruff(facts: Facts, lines: list[Line]) -> None:
    """ruff check in its full and concise formats, and ruff format --check."""
    heading: tuple[Line, re.Match[str]] | None = None
    for number, line in enumerate(lines):
        above = lines[number - 1].text
        if located := _LOCATED.match(line.text):
            finding = _RUFF_REST.match(line.text, located.start("rest"))
            if finding:
                _add_finding(facts, line, located, line, finding)
        elif (arrow := _RUFF_ARROW.match(line.text)) and above == _UNFORMATTED:
            facts.add("reformatted_file", line, arrow, "path")
        elif arrow and heading:
            _add_finding(facts, line, arrow, *heading)
            heading = None
        elif found := _RUFF_FOUND.match(line.text):
            facts.add("errors", line, found, "errors")
        elif fixable := _RUFF_FIXABLE.match(line.text):
            facts.add("fixable", line, fixable, "fixable")
        elif reformat := _REFORMAT.match(line.text):
            facts.add("reformatted_file", line, reformat, "path")
        elif reformatted := _REFORMATTED.match(line.text):
            facts.add("reformatted", line, reformatted, "reformatted")
            facts.add("formatted", line, reformatted, "formatted")
        elif finding := _RUFF_REST.match(line.text):
            heading = line, finding


def _add_finding(
    facts: Facts, line: Line, place: re.Match[str], named: Line, finding: re.Match[str]
) -> None:
    """A finding: ``place`` on ``line`` says where, ``finding`` on ``named`` says what."""
    path = place["path"]
    facts.add("error_file", line, place, "path")
    facts.add("error_line", line, place, "line")
    facts.add("error_column", line, place, "column")
    facts.add("error_line_in", line, place, "line", path=path)
    facts.add("error_column_in", line, place, "column", path=path)
    facts.add("error_code", named, finding, "code")
    facts.add("error_code_in", named, finding, "code", path=path)
    facts.add_message(named, finding)
    facts.add("error_message_in", named, finding, "message", path=path)


_MYPY_REST = re.compile(r"error: (?P<message>.+?)(?:  \[(?P<code>[a-z-]+)\])?$")
_MYPY_FOUND = re.compile(
    r"Found (?P<errors>\d+) errors? in (?P<files>\d+) files? "
    r"\((?:checked (?P<checked>\d+) source files?|errors prevented further checking)\)$"
)
_MYPY_SUCCESS = re.compile(r"Success: no issues found in (?P<checked>\d+) source files?$")


def mypy(facts: Facts, lines: list[Line]) -> None:
    """mypy's one line per error and its last line."""
    for line in lines:
        if located := _LOCATED.match(line.text):
            finding = _MYPY_REST.match(line.text, located.start("rest"))
            if finding:
                _add_finding(facts, line, located, line, finding)
        elif found := _MYPY_FOUND.match(line.text):
            facts.add("errors", line, found, "errors")
            facts.add("error_files", line, found, "files")
            facts.add("checked_files", line, found, "checked")
        elif success := _MYPY_SUCCESS.match(line.text):
            facts.add("checked_files", line, success, "checked")
