"""The names by which test runners call their tests."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.spans import Span

# tests/test_price.py::TestPrice::test_parse
_PYTEST_NODE = re.compile(r"([\w./@+~-](?<![\w./@+~-].)[\w./@+~-]*+)::\w++(?:::\w++)*+")
_PARAMETERS_CHARACTERS = 200  # a longer [...] after a test is not its parameters
# \n--- FAIL: TestAdd/zero (0.00s)
_TEST_LINE = re.compile(
    r"\n(?:test (?P<cargo>\S{1,300}+)(?: - should panic)? \.\.\. (?:ok|FAILED|ignored)"
    r"|---- (?P<captured>\S{1,300}+) stdout ----"
    r"|[ \t]{0,40}+--- (?:PASS|FAIL|SKIP): (?P<go>\S{1,300}+) \("
    r"|=== (?:RUN|PAUSE|CONT|NAME)[ \t]{1,4}+(?P<run>\S{1,300}+)"
    r"|(?P<unittest>(?:(?:FAIL|ERROR): |(?=test))(?P<name>\w{1,200}+)"
    r" \((?P<dotted>[\w.]{1,300}+)\)))"
)
# What a line ends with beside a test's name:
# opens with a key (12 ms)
_AFTER_NAME = re.compile(
    r"(?<![ \t])[ \t]++(?:[(\[]?<? ?\d[\d.]{0,12}+ ?(?:ms|s|seconds)[)\]]?|FAILED|PASSED"
    r"|SKIPPED)[ \t]*+\Z"
)
# \n[  FAILED  ] TillTest.Opens (0 ms)
_BY_RUNNER = re.compile(
    # GoogleTest
    r"\n(?=[ \t]{0,16}+\S)(?:\[(?: RUN      |       OK |  FAILED  |  SKIPPED |  TIMEOUT )\] "
    r"(?P<gtest>[A-Za-z_][\w/]{0,200}+\.[\w/]{1,200}+)"
    # jest
    r"| {0,6}+● (?P<jest>[^\n\u203a]{1,200}+\u203a[^\n]{1,300}+)"
    # vitest
    r"|[ \t]{0,6}+(?:FAIL|[×✓✗❯↓]) {1,4}+"  # noqa: RUF001
    r"(?P<vitest>[^\s>]{1,200}+ > [^\n]{1,300}+)"
    # mocha, node, jest, bats
    r"|[ \t]{1,16}+[✕✗✖×✓✔√] (?P<marked>[^\n\d ][^\n]{1,300}+)"  # noqa: RUF001
    r"|[✖✔✗✓] (?P<timed>[^\n\d ][^\n]{1,300}+)"
    # CTest
    r"| {0,8}+\d{1,5}+/\d{1,5}+ Test {1,6}+#\d{1,5}+: (?P<ctest>[\w./:+-]{1,200}+) "
    r"|[ \t]{1,8}+\d{1,5}+ - (?P<ctest_failed>\S{1,200}+) \((?:Failed|Timeout|SEGFAULT"
    r"|Subprocess"
    r"|ILLEGAL|INTERRUPT|NUMERICAL|OTHER_FAULT|Not Run)"
    # dotnet test, NUnit
    r"|[ \t]{0,6}+(?:Failed|Passed|Skipped|X|\u221a) "
    r"(?P<dotnet>[A-Za-z_][\w.+]{1,300}+(?:\([^\n\[)]{0,200}+\))?) \[[<\d]"
    r"|\d{1,4}+\) (?:Failed|Error|Invalid) : "
    r"(?P<nunit>[A-Za-z_][\w.+]{1,300}+(?:\([^\n)]{0,200}+\))?)"
    # PHPUnit
    r"|\d{1,4}+\) (?P<phpunit>[A-Za-z_][\w\\]{0,200}+::\w{1,200}+"
    r"(?: with data set (?:#\d{1,6}+|\"[^\"\n]{1,200}+\"))?)"
    # Surefire
    r"|(?:\[(?:ERROR|INFO|WARNING)\] {1,3}+)?(?P<surefire>[A-Za-z_][\w.$]{1,300}+"
    r"(?:\[[^\]\n]{1,100}+\])?(?:\([\w.$]{1,200}+\))?)(?: --)? {1,2}+Time elapsed: "
    r"|\[ERROR\] {2,4}+(?P<listed>[A-Z]\w{1,200}+\.\w{1,200}+)(?=[: ][\d\u00bb-])"
    # Gradle
    r"|[ \t]{0,4}+(?P<gradle>[A-Za-z_][\w.$]{1,300}+ > [^\n]{1,300}+)"
    # RSpec
    r"|rspec \S{1,300}+ # (?P<rspec>[^\n]{1,300}+)$"
    # TAP
    r"|[ \t]{0,16}+(?:not )?ok \d{1,6}+ (?:- )?(?P<tap>[^\s#-][^\n#]{0,300}+)"
    # cargo nextest
    r"| {1,12}+(?:FAIL|PASS|TIMEOUT|SIGABRT"
    r"|LEAK) \[ {0,6}+[\d.]{1,12}+s\] (?:\( {0,4}+\d{1,6}+/\d{1,6}+\) )?"
    r"(?P<nextest>\S{1,200}+ \S{1,200}+)"
    # XCTest, ExUnit, minitest
    r"|Test Case '(?P<xctest>[^'\n]{1,300}+)' (?:failed|passed|started)"
    r"| {1,6}+\d{1,4}+\) test (?P<exunit>[^\n(]{1,300}+\([A-Z][\w.]{1,200}+\))$"
    r"|(?P<minitest>[A-Z]\w{0,200}+(?:::\w{1,200}+){0,8}+#test_\w{1,200}+))",
    re.MULTILINE,
)
# The groups that take in what a line says beside a test's name.
_WITH_REST = frozenset(("jest", "vitest", "marked", "timed", "gradle", "tap"))
# \n  1) opens with a key
_NUMBERED = re.compile(r"\n {2,8}+\d{1,4}+\) (?P<mocha>[^\n]{2,300}+)")
# \n  3 failing
_OF_NUMBERED = re.compile(r"\n {2}\d{1,6}+ (?:passing|failing)\b|\n\d{1,6}+ examples?, \d")
# "Test":"TestOpen"
_IN_JSON = re.compile(r"\"Test\": ?\"([^\"\n]{1,300}+)\"")


def test_names(text: str) -> Iterator[Span]:
    """Names of tests, as their runners print them and take them."""
    has_parameters = "]" in text
    for match in _PYTEST_NODE.finditer(text) if ".py::" in text else ():
        if match[1].endswith(".py"):  # not a name of Rust or C++
            end = match.end()
            if has_parameters and text.startswith("[", end):
                end = _end_of_parameters(text, end)
            yield match.start(), end
    for match in _TEST_LINE.finditer(text):
        group = match.lastgroup or ""
        if group != "unittest":
            yield match.span(group)
        elif match["dotted"].endswith(f".{match['name']}"):
            yield match.span("dotted")
        else:
            yield match.start("name"), match.end("unittest")
    for match in _BY_RUNNER.finditer(text):
        group = match.lastgroup or ""
        name = match[group]
        bare = _AFTER_NAME.sub("", name) if group in _WITH_REST else name
        # These are tests only if a time or a verdict stands behind them.
        if bare != name or group not in ("timed", "gradle"):
            yield match.start(group), match.start(group) + len(bare.rstrip())
    for match in _NUMBERED.finditer(text) if _OF_NUMBERED.search(text) else ():
        yield match.start("mocha"), match.start("mocha") + len(match["mocha"].rstrip(": \t"))
    for match in _IN_JSON.finditer(text) if '"Test"' in text else ():
        yield match.span(1)


def _end_of_parameters(text: str, start: int) -> int:
    """The end of ``[...]`` at ``start``, where a ``]`` ends a word; ``start`` if there is none."""
    stop = min(start + _PARAMETERS_CHARACTERS, len(text))
    line_end = text.find("\n", start, stop)
    stop = stop if line_end < 0 else line_end
    end = text.find("]", start, stop)
    while end >= 0:
        following = text[end + 1 : end + 2]
        if not following or following.isspace() or following in ":,;)\"'`":
            return end + 1
        end = text.find("]", end + 1, stop)
    return start
