"""Facts in what pytest and unittest print."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.facts import Facts, Line
from clara_mlx.tool_outputs.python_tools import EXCEPTION, traceback

_FAILED = re.compile(
    r"(?P<outcome>FAILED|ERROR) (?P<path>\S+?\.py)(?:::(?P<test>\S+))?(?: - (?P<why>.+))?$"
)
_VERBOSE = re.compile(
    r"(?P<path>\S+?\.py)::(?P<test>\S+) (?P<outcome>PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b"
)
_END = re.compile(
    r"(?:=+ )?(?P<counts>\d+ [a-z]+(?: [a-z]+)?(?:, \d+ [a-z]+(?: [a-z]+)?)*)"
    r" in (?P<duration>\d[\d.]*s)(?: \(\d+:\d\d:\d\d\))?(?: =+)?$"
)
_COUNT = re.compile(r"(\d+) ([a-z]+)")
_COUNTED = {
    "failed": "failed",
    "passed": "passed",
    "skipped": "skipped",
    "warning": "warnings",
    "warnings": "warnings",
    "error": "errors",
    "errors": "errors",
}
_COLLECTED = re.compile(r"collected (?P<ran>\d+) items?$")
_E_LINE = re.compile(r"E   +(?P<text>\S.*)$")
_COMPARED = re.compile(
    r"E +(?:AssertionError: )?assert (?P<actual>[-\w.]+|'[^']*'|\"[^\"]*\")"
    r" == (?P<expected>[-\w.]+|'[^']*'|\"[^\"]*\")$"
)
_E_EXCEPTION = re.compile(r"E   +" + EXCEPTION.pattern)
_PLACE = re.compile(
    r"(?P<path>[^\s:]+\.py):(?P<line>\d+): (?:in \S+|(?P<kind>(?:\w+\.)*[A-Z]\w*))$"
)
_PLATFORM = re.compile(
    r"platform \S+ -- Python (?P<Python>[\d.]+)\S*?(?:, pytest-(?P<pytest>[\d.]+))?"
    r"(?:, pluggy-(?P<pluggy>[\d.]+))?$"
)
_ROOT = re.compile(r"rootdir: (?P<root>\S+)$")
_SLOW = re.compile(r"(?P<duration>\d[\d.]*s) call +(?P<path>\S+?\.py)::(?P<test>\S+)$")
_COVERAGE = re.compile(r"TOTAL +\d+ +\d+ +(?:\d+ +\d+ +)?(?P<coverage>\d+%)$")


def pytest(facts: Facts, lines: list[Line]) -> None:
    """pytest's summary, verbose lines, failures and header."""
    counted = 0
    collected: tuple[Line, re.Match[str]] | None = None
    place: tuple[Line, re.Match[str]] | None = None
    for number, line in enumerate(lines):
        text = line.text
        if failed := _FAILED.match(text):
            _add_failed(facts, line, failed)
        elif verbose := _VERBOSE.match(text):
            facts.add("test_file_of", line, verbose, "path", name=verbose["test"])
            if verbose["outcome"] == "FAILED":
                _add_failed_test(facts, line, verbose)
            elif verbose["outcome"] == "SKIPPED":
                facts.add("skipped_test", line, verbose, "test")
        elif text.startswith(("FAILED ", "ERROR ")):
            facts.mark_unread("failed_test")  # a name with blanks
            facts.mark_unread("test_file")
        elif end := _END.match(text):
            counted += _add_counts(facts, line, end)
        elif match := _COLLECTED.match(text):
            collected = line, match
        elif match := _PLACE.match(text):
            place = line, match
            if match["kind"]:
                _add_place(facts, *place)
                facts.add("exception", line, match, "kind")
        elif _E_LINE.match(text):
            first = not lines[number - 1].text.startswith("E  ")
            last = number + 1 == len(lines) or not lines[number + 1].text.startswith("E  ")
            if place and "in " in place[0].text[place[1].end("line") :]:
                _add_place(facts, *place)  # --tb=short: the last frame is above
                place = None
            if first:
                _add_e_line(facts, line, alone=last)
        elif match := _PLATFORM.match(text):
            for name in ("Python", "pytest", "pluggy"):
                facts.add("version", line, match, name, name=name)
        elif match := _ROOT.match(text):
            facts.add("root", line, match, "root")
        elif match := _SLOW.match(text):
            facts.add("package_duration", line, match, "duration", name=match["test"])
            facts.add("test_file_of", line, match, "path", name=match["test"])
        elif match := _COVERAGE.match(text):
            facts.add("coverage", line, match, "coverage")
    # With -x, or tests that were deselected, fewer ran than were collected.
    if collected and int(collected[1]["ran"]) == counted:
        facts.add("ran", *collected, "ran")


def _add_failed(facts: Facts, line: Line, match: re.Match[str]) -> None:
    if match["outcome"] == "FAILED" and match["test"]:
        _add_failed_test(facts, line, match)
    if match["outcome"] == "ERROR" and not match["test"]:
        facts.add("error_file", line, match, "path")
    if match["why"] is None:
        return
    name = {"name": match["test"]} if match["test"] else {}
    why = EXCEPTION.match(line.text, match.start("why"))
    if why is None:  # an assertion, without its name
        facts.imply("exception", "AssertionError")
        return
    facts.add("exception", line, why, "kind")
    if name:
        facts.add("exception_of", line, why, "kind", **name)
    if why["message"] and not why["message"].endswith("..."):  # cut to the terminal's width
        facts.add_message(line, why)
        if name:
            facts.add("error_message_of", line, why, "message", **name)


def _add_failed_test(facts: Facts, line: Line, match: re.Match[str]) -> None:
    path, test = match["path"], match["test"]
    facts.add("failed_test", line, match, "test")
    facts.add("failed_test_in", line, match, "test", path=path)
    facts.add("test_file", line, match, "path")
    facts.add("test_file_of", line, match, "path", name=test)


def _add_counts(facts: Facts, line: Line, end: re.Match[str]) -> int:
    """The counts of the last line; returns how many tests it counts."""
    total = 0
    for count in _COUNT.finditer(line.text, *end.span("counts")):
        fact = _COUNTED.get(count[2])
        if fact:
            facts.add(fact, line, count, 1)
        if count[2] in ("failed", "passed", "skipped", "xfailed", "xpassed"):
            total += int(count[1])
    facts.add("duration", line, end, "duration")
    return total


def _add_place(facts: Facts, line: Line, match: re.Match[str]) -> None:
    facts.add("error_file", line, match, "path")
    facts.add("error_line", line, match, "line")
    facts.add("error_line_in", line, match, "line", path=match["path"])


def _add_e_line(facts: Facts, line: Line, alone: bool) -> None:
    if compared := _COMPARED.match(line.text):
        facts.add("actual", line, compared, "actual")
        facts.add("expected", line, compared, "expected")
    elif raised := _E_EXCEPTION.match(line.text):
        facts.add("exception", line, raised, "kind")
        if alone:
            facts.add_message(line, raised)
        else:
            facts.mark_unread("error_message")


_HEADING = re.compile(
    r"(?P<outcome>FAIL|ERROR): (?P<test>\w+) \((?:[\w.]*\.)?(?P<case>\w+)\.(?P<again>\w+)\)"
)
_RESULT = re.compile(
    r"(?P<test>\w+) \((?:[\w.]*\.)?(?P<case>\w+)\.(?P<again>\w+)\) \.\.\. "
    r"(?:(?P<failed>FAIL|ERROR)|skipped ['\"](?P<reason>.+)['\"]|ok)$"
)
_RAN = re.compile(r"Ran (?P<ran>\d+) tests? in (?P<duration>\d[\d.]*s)$")
_VERDICT = re.compile(r"(?:FAILED|OK) \((?P<counts>[a-z ]+=\d+(?:, [a-z ]+=\d+)*)\)$")
_VERDICT_COUNTS = (
    ("failed", re.compile(r"\bfailures=(\d+)")),
    ("errors", re.compile(r"\berrors=(\d+)")),
    ("skipped", re.compile(r"\bskipped=(\d+)")),
)
_UNEQUAL = re.compile(
    r"AssertionError: (?P<actual>[-\w.]+|'[^']*'|\"[^\"]*\")"
    r" != (?P<expected>[-\w.]+|'[^']*'|\"[^\"]*\")$"
)
_TEST_FRAME = re.compile(r'  File "(?P<path>[^"<]+)", line \d+, in (?P<test>test\w*)$')


def unittest(facts: Facts, lines: list[Line]) -> None:
    """unittest's headings, tracebacks, verbose lines and verdict."""
    for line in lines:
        text = line.text
        if heading := _HEADING.match(text):
            _add_case(facts, line, heading)
        elif result := _RESULT.match(text):
            if result["failed"]:
                _add_case(facts, line, result)
            elif result["reason"]:
                facts.add("skipped_test", line, result, "test")
                facts.add("skip_reason", line, result, "reason")
        elif ran := _RAN.match(text):
            facts.add("ran", line, ran, "ran")
            facts.add("duration", line, ran, "duration")
        elif verdict := _VERDICT.match(text):
            for fact, pattern in _VERDICT_COUNTS:
                if count := pattern.search(text, verdict.start("counts")):
                    facts.add(fact, line, count, 1)
        elif frame := _TEST_FRAME.match(text):
            facts.add("test_file", line, frame, "path")
        elif unequal := _UNEQUAL.match(text):
            facts.add("actual", line, unequal, "actual")
            facts.add("expected", line, unequal, "expected")
    traceback(facts, lines)


def _add_case(facts: Facts, line: Line, match: re.Match[str]) -> None:
    if match["again"] != match["test"]:
        facts.mark_unread("failed_test")  # Python before 3.11, or a class's set-up
        return
    facts.add("failed_test", line, match, "test")
    facts.add("test_class", line, match, "case")
