"""Facts in what cargo, go and gcc print."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.facts import Facts, Line

_RUST_HEADING = re.compile(r"(?P<level>error|warning)(?:\[(?P<code>E\d{4})\])?: (?P<message>.+)$")
_RUST_ARROW = re.compile(r" *--> (?P<path>[^\s:]+):(?P<line>\d+)(?::(?P<column>\d+))?$")
_NOT_COMPILED = re.compile(r"error: could not compile `(?P<package>[\w-]+)`")
_GENERATED = re.compile(
    r"warning: `(?P<package>[\w-]+)` \(.+?\) generated (?P<warnings>\d+) warnings?\b"
)
_ABORTING = re.compile(r"error: aborting due to (?P<errors>\d+) previous errors")
_RUST_TYPES = re.compile(r"\bexpected `(?P<expected>[^`]+)`, found `(?P<actual>[^`]+)`$")
_CRATE = re.compile(
    r" +(?:Compiling|Downloaded|Checking|Adding|Locking) (?P<name>[\w-]+) v(?P<version>\d[\w.+-]*)"
)
_FINISHED = re.compile(r" +Finished .+ target\(s\) in (?P<duration>\d[\d.]*s)$")
_RUST_TEST = re.compile(
    r"test (?P<test>\S+)(?: - should panic)? \.\.\. (?P<outcome>FAILED|ignored)"
)
_PANIC = re.compile(
    r"thread '(?P<test>[^']+)' (?:\(\d+\) )?panicked at "
    r"(?P<path>[^\s:]+):(?P<line>\d+):(?P<column>\d+):$"
)
_SIDE = re.compile(r" {1,2}(?P<side>left|right): (?P<value>.+)$")
_RUST_RESULT = re.compile(
    r"test result: \S+\. (?P<passed>\d+) passed; (?P<failed>\d+) failed; (?P<ignored>\d+) ignored;"
    r".*?(?: finished in (?P<duration>\d[\d.]*s))?$"
)


def cargo(facts: Facts, lines: list[Line]) -> None:
    """cargo build, check and test."""
    heading: tuple[Line, re.Match[str]] | None = None
    for number, line in enumerate(lines):
        text = line.text
        if match := _NOT_COMPILED.match(text):
            facts.add("failed_package", line, match, "package")
        elif match := _GENERATED.match(text):
            facts.add("package", line, match, "package")
            facts.add("warnings", line, match, "warnings")
        elif match := _ABORTING.match(text):
            facts.add("errors", line, match, "errors")
        elif match := _RUST_HEADING.match(text):
            heading = line, match
        elif (match := _RUST_ARROW.match(text)) and heading:
            _add_rust(facts, heading, line, match)
            heading = None
        elif match := _CRATE.match(text):
            facts.add("version", line, match, "version", name=match["name"])
        elif match := _FINISHED.match(text):
            facts.add("duration", line, match, "duration")
        elif match := _RUST_TEST.match(text):
            fact = "failed_test" if match["outcome"] == "FAILED" else "ignored_test"
            facts.add(fact, line, match, "test")
        elif match := _PANIC.match(text):
            _add_panic(facts, line, match, lines[number + 1 : number + 3])
        elif match := _SIDE.match(text):
            facts.add(match["side"], line, match, "value")
        elif match := _RUST_RESULT.match(text):
            for fact in ("passed", "failed", "ignored", "duration"):
                facts.add(fact, line, match, fact)
        if types := _RUST_TYPES.search(text):
            facts.add("expected_type", line, types, "expected")
            facts.add("actual_type", line, types, "actual")


def _add_rust(
    facts: Facts, heading: tuple[Line, re.Match[str]], line: Line, arrow: re.Match[str]
) -> None:
    if heading[1]["level"] == "warning":
        facts.add("warning_message", *heading, "message")
        facts.add("warning_file", line, arrow, "path")
        facts.add("warning_line", line, arrow, "line")
        return
    facts.add("error_code", *heading, "code")
    facts.add_message(*heading)
    facts.add("error_file", line, arrow, "path")
    facts.add("error_line", line, arrow, "line")
    facts.add("error_column", line, arrow, "column")
    facts.add("error_line_in", line, arrow, "line", path=arrow["path"])


_WORDS = re.compile(r"(?P<message>\S.*)$")


def _add_panic(facts: Facts, line: Line, match: re.Match[str], following: list[Line]) -> None:
    if match["test"] != "main":
        facts.add("failed_test", line, match, "test")
    facts.add("error_file", line, match, "path")
    facts.add("error_line", line, match, "line")
    facts.add("error_column", line, match, "column")
    # A message of one line ends the block, or cargo's note follows.
    ends = len(following) < 2 or not following[1].text or following[1].text.startswith("note: ")
    said = _WORDS.match(following[0].text) if following else None
    if said and ends:
        facts.add_message(following[0], said)
    else:
        facts.mark_unread("error_message")


_GO_FAIL = re.compile(r"--- FAIL: (?P<test>\S+) \(\d")
_GO_GOT = re.compile(
    r" {4,}(?P<path>\w+_test\.go):(?P<line>\d+): (?:got (?P<actual>\S+), want (?P<expected>\S+)$)?"
)
_GO_PACKAGE = re.compile(
    r"(?P<outcome>ok  |FAIL)[ \t]+(?P<package>[\w./~-]+)"
    r"(?:\t(?P<duration>\d[\d.]*s))?"
)
_GO_HEADING = re.compile(r"# (?P<package>[\w./~-]+)(?: \[.+\])?$")
_GO_ERROR = re.compile(
    r"(?:\./)?(?P<path>[\w./@-]+\.go):(?P<line>\d+):(?P<column>\d+): (?P<message>.+)$"
)
_GO_PANIC = re.compile(r"panic: (?P<message>.+?)(?: \[recovered\])?$")
_GO_FRAME = re.compile(r"\t(?P<path>\S+\.go):(?P<line>\d+)(?: \+0x[0-9a-f]+)?$")
_GO_FUNCTION = re.compile(r"(?P<function>[\w./]+\.[\w.()*]+)\(.*\)$")
_EXIT = re.compile(r"exit status (?P<status>\d+)$")


def go(facts: Facts, lines: list[Line]) -> None:
    """go build, go vet, go test and panics."""
    framed = False  # the panic's first frame has been read
    panicked = False
    for number, line in enumerate(lines):
        text = line.text
        if match := _GO_FAIL.match(text):
            facts.add("failed_test", line, match, "test")
        elif match := _GO_GOT.match(text):
            facts.add("test_file", line, match, "path")
            facts.add("error_line", line, match, "line")
            facts.add("actual", line, match, "actual")
            facts.add("expected", line, match, "expected")
        elif match := _GO_PACKAGE.match(text):
            _add_go_package(facts, line, match)
        elif match := _GO_HEADING.match(text):
            facts.add("failed_package", line, match, "package")
        elif match := _GO_ERROR.match(text):
            facts.add("error_file", line, match, "path")
            facts.add("error_line", line, match, "line")
            facts.add("error_column", line, match, "column")
            facts.add("error_line_in", line, match, "line", path=match["path"])
            facts.add_message(line, match)
            facts.add("error_message_in", line, match, "message", path=match["path"])
        elif match := _GO_PANIC.match(text):
            panicked = True
            facts.add_message(line, match)
        elif panicked and not framed and (match := _GO_FRAME.match(text)):
            framed = True
            facts.add("error_file", line, match, "path")
            facts.add("error_line", line, match, "line")
            above = lines[number - 1]
            if function := _GO_FUNCTION.match(above.text):
                facts.add("function", above, function, "function")
        elif match := _EXIT.match(text):
            facts.add("exit_status", line, match, "status")


def _add_go_package(facts: Facts, line: Line, match: re.Match[str]) -> None:
    package = match["package"]
    if match["outcome"] == "FAIL":
        facts.add("failed_package", line, match, "package")
        facts.add("duration", line, match, "duration")
    facts.add("package_duration", line, match, "duration", name=package)


_GCC = re.compile(
    r"(?P<path>[^\s:]+):(?P<line>\d+):(?:(?P<column>\d+):)? "
    r"(?P<level>fatal error|error|warning): (?P<message>.+?)(?: \[(?P<option>-W[\w=+-]+)\])?$"
)
_IN_FUNCTION = re.compile(
    r"[^\s:]+: In (?:member )?function ['\u2018](?P<function>\w+)(?:\(.*\))?['\u2019]:$"
)
_UNDEFINED = re.compile(
    r"(?:\S*ld: )?(?:[^\s:]+:)?(?P<path>[^\s:]+):(?:\(\.text\+0x[0-9a-f]+\)|\d+): "
    r"(?P<message>undefined reference to [`'\u2018]\w+['\u2019])$"
)
_LINKED_IN = re.compile(r".*: in function [`'\u2018](?P<function>\w+)['\u2019]:$")
_LD = re.compile(r"collect2: error: ld returned (?P<status>\d+) exit status$")
MAKE = re.compile(
    r"make(?:\[\d+\])?: \*\*\* \[(?:(?P<file>[^\s:\]]+):(?P<line>\d+): )?(?P<target>[^\]]+)\] "
    r"Error (?P<status>\d+)$"
)


def gcc(facts: Facts, lines: list[Line]) -> None:
    """gcc, clang and their linkers, with make's last line."""
    located = sum(1 for line in lines if _GCC.match(line.text))
    for line in lines:
        text = line.text
        if match := _GCC.match(text):
            _add_gcc(facts, line, match)
        elif match := _IN_FUNCTION.match(text):
            if located == 1:
                facts.add("function", line, match, "function")
        elif match := _UNDEFINED.match(text):
            facts.add("error_file", line, match, "path")
            facts.add_message(line, match)
        elif match := _LINKED_IN.match(text):
            facts.add("function", line, match, "function")
        elif match := _LD.match(text):
            facts.add("exit_status", line, match, "status")
        elif match := MAKE.match(text):
            make_failure(facts, line, match)


def _add_gcc(facts: Facts, line: Line, match: re.Match[str]) -> None:
    path = match["path"]
    if match["level"] == "warning":
        facts.add("warning_message", line, match, "message")
        facts.add("warning_option", line, match, "option")
        facts.add("warning_file", line, match, "path")
        facts.add("warning_line", line, match, "line")
        return
    facts.add("error_file", line, match, "path")
    facts.add("error_line", line, match, "line")
    facts.add("error_column", line, match, "column")
    facts.add("error_line_in", line, match, "line", path=path)
    facts.add("error_column_in", line, match, "column", path=path)
    facts.add_message(line, match)
    facts.add("error_message_in", line, match, "message", path=path)


def make_failure(facts: Facts, line: Line, match: re.Match[str]) -> None:
    """What a match of `MAKE` says."""
    facts.add("target", line, match, "target")
    facts.add("makefile_line", line, match, "line")
    facts.add("exit_status", line, match, "status")
