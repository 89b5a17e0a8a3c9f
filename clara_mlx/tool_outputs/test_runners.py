"""The rules for test runners: pytest and unittest."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.facts import Facts
from clara_mlx.tool_outputs.lines import Line, Lines, Matched
from clara_mlx.tool_outputs.python_tools import EXCEPTION, traceback

# FAILED tests/test_price.py::test_parse - ValueError: not enough values
_PYTEST_FAILED = re.compile(
    r"(?P<outcome>FAILED|ERROR) (?>(?P<path>\S+?\.py)(?=::\S|\s|$))(?:::(?P<test>\S+))?"
    r"(?: - (?P<why>.+))?$"
)
# tests/test_store.py::test_take FAILED [ 50%]
_PYTEST_VERBOSE = re.compile(
    r"(?>(?P<path>\S+?\.py)::(?=\S))(?P<test>\S+) "
    r"(?P<outcome>PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b"
)
# === 1 failed, 3 passed in 0.62s ===
_PYTEST_END = re.compile(
    r"(?:=+ )?(?P<counts>\d+ [a-z]+(?: [a-z]+)?(?:, \d+ [a-z]+(?: [a-z]+)?)*)"
    r" in (?P<duration>\d[\d.]*s)(?: \(\d+:\d\d:\d\d\))?(?: =+)?$"
)
# 1 failed
_PYTEST_COUNT = re.compile(r"(?<!\d)(\d+) ([a-z]+)")
# The words of pytest's last line, with the names of their facts.
_PYTEST_FACTS = {
    "failed": "failed",
    "passed": "passed",
    "skipped": "skipped",
    "warning": "warnings",
    "warnings": "warnings",
    "error": "errors",
    "errors": "errors",
}
# collected 9 items
_PYTEST_COLLECTED = re.compile(r"collected (?P<ran>\d+) items?$")
# E       ValueError: not enough values to unpack
_PYTEST_E_LINE = re.compile(r"E   +(?P<text>\S.*)$")
# E       assert 3 == 4
_PYTEST_COMPARED = re.compile(
    r"E +(?:AssertionError: )?assert (?P<actual>[-\w.]+|'[^']*'|\"[^\"]*\")"
    r" == (?P<expected>[-\w.]+|'[^']*'|\"[^\"]*\")$"
)
# E   KeyError: 'bolt'
_PYTEST_E_EXCEPTION = re.compile(r"E   +" + EXCEPTION.pattern)
# inventory/price.py:10: ValueError
_PYTEST_PLACE = re.compile(
    r"(?P<path>[^\s:]+\.py):(?P<line>\d+): (?:in \S+|(?P<kind>(?:\w+\.)*[A-Z]\w*))$"
)
# platform linux -- Python 3.12.1, pytest-8.3.3, pluggy-1.5.0
_PYTEST_PLATFORM = re.compile(
    r"platform \S+ -- Python (?P<Python>[\d.]+)(?:[^\s\d.]\S*?)??(?:, pytest-(?P<pytest>[\d.]+))?"
    r"(?:, pluggy-(?P<pluggy>[\d.]+))?$"
)
# rootdir: /project
_PYTEST_ROOT = re.compile(r"rootdir: (?P<root>\S+)$")
# 0.05s call     tests/test_slow.py::test_wait
_PYTEST_SLOW = re.compile(
    r"(?P<duration>\d[\d.]*s) call +(?>(?P<path>\S+?\.py)::(?=\S))(?P<test>\S+)$"
)
# TOTAL      120      6    95%
_PYTEST_COVERAGE = re.compile(r"TOTAL +\d+ +\d+ +(?:\d+ +\d+ +)?(?P<coverage>\d+%)$")
# How lines begin that one of these patterns matches.
# FAILED tests/test_price.py::test_parse - ValueError: not enough values
_PYTEST_LINE = re.compile(
    r"FAILED |ERROR |\S+\.py:|(?:=+ )?\d+ [a-z]|collected \d|E   +\S|platform |rootdir: "
    r"|\d[\d.]*s call |TOTAL "
)


def pytest(facts: Facts, lines: Lines) -> None:
    """Read pytest: its header, verbose lines, failures and summary."""
    counted = 0  # tests that the last line counts
    collected: Matched | None = None
    place: Matched | None = None
    for number, line in lines.matching(_PYTEST_LINE):
        text = line.text
        if failed := _PYTEST_FAILED.match(text):
            _add_failed(facts, line, failed)
        elif verbose := _PYTEST_VERBOSE.match(text):
            facts.add("test_file_of", line, verbose, "path", name=verbose["test"])
            if verbose["outcome"] == "FAILED":
                _add_failed_test(facts, line, verbose)
            elif verbose["outcome"] == "SKIPPED":
                facts.add("skipped_test", line, verbose, "test")
        elif text.startswith(("FAILED ", "ERROR ")):
            facts.mark_unread("failed_test")  # its name has blanks
            facts.mark_unread("test_file")
        elif end := _PYTEST_END.match(text):
            counted += _add_counts(facts, line, end)
        elif match := _PYTEST_COLLECTED.match(text):
            collected = line, match
        elif match := _PYTEST_PLACE.match(text):
            place = line, match
            if match["kind"]:
                _add_place(facts, *place)
                facts.add("exception", line, match, "kind")
        elif _PYTEST_E_LINE.match(text):
            first = not lines.texts[number - 1].startswith("E  ")
            last = not lines.text_after(number).startswith("E  ")
            if place and not place[1]["kind"]:
                _add_place(facts, *place)  # --tb=short: the last frame is above
                place = None
            if first:
                _add_e_line(facts, line, alone=last)
        elif match := _PYTEST_PLATFORM.match(text):
            for name in ("Python", "pytest", "pluggy"):
                facts.add("version", line, match, name, name=name)
        elif match := _PYTEST_SLOW.match(text):
            facts.add("package_duration", line, match, "duration", name=match["test"])
            facts.add("test_file_of", line, match, "path", name=match["test"])
        else:
            facts.add_first(line, (_PYTEST_ROOT, _PYTEST_COVERAGE))
    # With -x, or tests that were deselected, fewer ran than were collected.
    if collected and int(collected[1]["ran"]) == counted:
        facts.add("ran", *collected, "ran")


def _add_failed(facts: Facts, line: Line, match: re.Match[str]) -> None:
    """Add what a line of the summary says: the test or file that failed, and why."""
    if match["outcome"] == "FAILED" and match["test"]:
        _add_failed_test(facts, line, match)
    if match["outcome"] == "ERROR" and not match["test"]:
        facts.add("error_file", line, match, "path")
    if match["why"] is None:
        return
    name = {"name": match["test"]} if match["test"] else {}
    why = EXCEPTION.match(line.text, match.start("why"))
    if why is None:  # pytest leaves out the name of an AssertionError
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
    """Add the counts of the last line; return the number of tests that it counts."""
    total = 0
    for count in _PYTEST_COUNT.finditer(line.text, *end.span("counts")):
        fact = _PYTEST_FACTS.get(count[2])
        if fact:
            facts.add(fact, line, count, 1)
        if count[2] in ("failed", "passed", "skipped", "xfailed", "xpassed"):
            total += int(count[1])
    facts.add("duration", line, end, "duration")
    return total


def _add_place(facts: Facts, line: Line, match: re.Match[str]) -> None:
    facts.add_all(line, match, error_file="path", error_line="line")
    facts.add("error_line_in", line, match, "line", path=match["path"])


def _add_e_line(facts: Facts, line: Line, alone: bool) -> None:
    if compared := _PYTEST_COMPARED.match(line.text):
        facts.add_groups(line, compared)
    elif raised := _PYTEST_E_EXCEPTION.match(line.text):
        facts.add("exception", line, raised, "kind")
        if alone:
            facts.add_message(line, raised)
        else:
            facts.mark_unread("error_message")


# FAIL: test_total (checks.test_stock.StockTest.test_total)
_UNITTEST_HEADING = re.compile(
    r"(?P<outcome>FAIL|ERROR): (?P<test>\w+) \((?:[\w.]*\.)?(?P<case>\w+)\.(?P<again>\w+)\)"
)
# test_total (checks.test_stock.StockTest.test_total) ... FAIL
_UNITTEST_RESULT = re.compile(
    r"(?P<test>\w+) \((?:[\w.]*\.)?(?P<case>\w+)\.(?P<again>\w+)\) \.\.\. "
    r"(?:(?P<failed>FAIL|ERROR)|skipped ['\"](?P<reason>.+)['\"]|ok)$"
)
# Ran 3 tests in 0.001s
_UNITTEST_RAN = re.compile(r"Ran (?P<ran>\d+) tests? in (?P<duration>\d[\d.]*s)$")
# FAILED (failures=1, skipped=1)
_UNITTEST_VERDICT = re.compile(r"(?:FAILED|OK) \((?P<counts>[a-z ]+=\d+(?:, [a-z ]+=\d+)*)\)$")
# The counts in a verdict, with the names of their facts.
_UNITTEST_COUNTS = (
    ("failed", re.compile(r"\bfailures=(\d+)")),
    ("errors", re.compile(r"\berrors=(\d+)")),
    ("skipped", re.compile(r"\bskipped=(\d+)")),
)
# AssertionError: 4 != 5
_UNITTEST_UNEQUAL = re.compile(
    r"AssertionError: (?P<actual>[-\w.]+|'[^']*'|\"[^\"]*\")"
    r" != (?P<expected>[-\w.]+|'[^']*'|\"[^\"]*\")$"
)
#   File "/project/test_stock.py", line 9, in test_total
_UNITTEST_FRAME = re.compile(r'  File "(?P<path>[^"<]+)", line \d+, in (?P<test>test\w*)$')
# How lines begin that one of these patterns matches.
# FAIL: test_total (checks.test_stock.StockTest.test_total)
_UNITTEST_LINE = re.compile(
    r"(?:FAIL|ERROR): |\w+ \([\w.]+\) |Ran \d|(?:FAILED|OK) \(|AssertionError: |  File \""
)


def unittest(facts: Facts, lines: Lines) -> None:
    """Read unittest: its headings, tracebacks, verbose lines and verdict."""
    for _, line in lines.matching(_UNITTEST_LINE):
        text = line.text
        if heading := _UNITTEST_HEADING.match(text):
            _add_case(facts, line, heading)
        elif result := _UNITTEST_RESULT.match(text):
            if result["failed"]:
                _add_case(facts, line, result)
            elif result["reason"]:
                facts.add_all(line, result, skipped_test="test", skip_reason="reason")
        elif ran := _UNITTEST_RAN.match(text):
            facts.add_groups(line, ran)
        elif verdict := _UNITTEST_VERDICT.match(text):
            for fact, pattern in _UNITTEST_COUNTS:
                if count := pattern.search(text, verdict.start("counts")):
                    facts.add(fact, line, count, 1)
        elif frame := _UNITTEST_FRAME.match(text):
            facts.add("test_file", line, frame, "path")
        elif unequal := _UNITTEST_UNEQUAL.match(text):
            facts.add_groups(line, unequal)
    traceback(facts, lines)


def _add_case(facts: Facts, line: Line, match: re.Match[str]) -> None:
    if match["again"] != match["test"]:
        facts.mark_unread("failed_test")  # printed by Python before 3.11, or of a class's set-up
        return
    facts.add_all(line, match, failed_test="test", test_class="case")
