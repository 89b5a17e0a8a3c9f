"""The rules for compilers: cargo, go and gcc."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.facts import Facts
from clara_mlx.tool_outputs.lines import Line, Lines, Matched

# error[E0308]: mismatched types
_RUST_HEADING = re.compile(r"(?P<level>error|warning)(?:\[(?P<code>E\d{4})\])?: (?P<message>.+)$")
#  --> src/main.rs:2:22
_RUST_ARROW = re.compile(r" *--> (?P<path>[^\s:]+):(?P<line>\d+)(?::(?P<column>\d+))?$")
# error: could not compile `stock` (lib) due to 1 previous error
_RUST_NOT_COMPILED = re.compile(r"error: could not compile `(?P<failed_package>[\w-]+)`")
# warning: `stock` (lib) generated 2 warnings
_RUST_WARNINGS = re.compile(
    r"warning: `(?P<package>[\w-]+)` \(.+?\) generated (?P<warnings>\d+) warnings?\b"
)
# error: aborting due to 2 previous errors
_RUST_ERRORS = re.compile(r"error: aborting due to (?P<errors>\d+) previous errors")
#   |  ^^^ expected `i32`, found `&str`
_RUST_TYPES = re.compile(r"\bexpected `(?P<expected_type>[^`]+)`, found `(?P<actual_type>[^`]+)`$")
#    Compiling serde v1.0.203
_RUST_CRATE = re.compile(
    r" +(?:Compiling|Downloaded|Checking|Adding|Locking) (?P<name>[\w-]+) v(?P<version>\d[\w.+-]*)"
)
#     Finished `dev` profile [unoptimized] target(s) in 0.52s
_RUST_FINISHED = re.compile(r" +Finished .+ target\(s\) in (?P<duration>\d[\d.]*s)$")
# test tests::adds ... FAILED
_RUST_FAILED = re.compile(r"test (?P<failed_test>\S+)(?: - should panic)? \.\.\. FAILED")
# test tests::slow ... ignored
_RUST_IGNORED = re.compile(r"test (?P<ignored_test>\S+)(?: - should panic)? \.\.\. ignored")
# thread 'tests::adds' panicked at src/lib.rs:18:9:
_RUST_PANIC = re.compile(
    r"thread '(?P<test>[^']+)' (?:\(\d+\) )?panicked at "
    r"(?P<path>[^\s:]+):(?P<line>\d+):(?P<column>\d+):$"
)
#   left: 4
_RUST_SIDE = re.compile(r" {1,2}(?:left: (?P<left>.+)|right: (?P<right>.+))$")
# test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; finished in 0.02s
_RUST_RESULT = re.compile(
    r"test result: \S+\. (?P<passed>\d+) passed; (?P<failed>\d+) failed; (?P<ignored>\d+) ignored;"
    r".*?(?: finished in (?P<duration>\d[\d.]*s))?$"
)
_CARGO = (
    *(_RUST_NOT_COMPILED, _RUST_WARNINGS, _RUST_ERRORS, _RUST_FINISHED),
    *(_RUST_FAILED, _RUST_IGNORED, _RUST_SIDE, _RUST_RESULT),
)


# How lines begin that one of these patterns matches.
# error[E0308]: mismatched types
_CARGO_LINE = re.compile(
    r"(?:error|warning)(?:\[E\d{4}\])?: | *--> | {1,2}(?:left|right): | +[A-Z][a-z]+ \S|test "
    r"|thread '|.*\bexpected `"
)


def cargo(facts: Facts, lines: Lines) -> None:
    """Read cargo build, cargo check and cargo test."""
    heading: Matched | None = None
    for number, line in lines.matching(_CARGO_LINE):
        text = line.text
        if types := _RUST_TYPES.search(text):
            facts.add_groups(line, types)
        if facts.add_first(line, _CARGO):
            continue
        if match := _RUST_HEADING.match(text):
            heading = line, match
        elif (match := _RUST_ARROW.match(text)) and heading:
            _add_rust_finding(facts, heading, line, match)
            heading = None
        elif match := _RUST_CRATE.match(text):
            facts.add("version", line, match, "version", name=match["name"])
        elif match := _RUST_PANIC.match(text):
            _add_panic(facts, lines, number, match)


def _add_rust_finding(facts: Facts, heading: Matched, line: Line, arrow: re.Match[str]) -> None:
    if heading[1]["level"] == "warning":
        facts.add("warning_message", *heading, "message")
        facts.add_all(line, arrow, warning_file="path", warning_line="line")
        return
    facts.add("error_code", *heading, "code")
    facts.add_message(*heading)
    facts.add_all(line, arrow, error_file="path", error_line="line", error_column="column")
    facts.add("error_line_in", line, arrow, "line", path=arrow["path"])


# called `Option::unwrap()` on a `None` value
_PANIC_MESSAGE = re.compile(r"(?P<message>\S.*)$")


def _add_panic(facts: Facts, lines: Lines, number: int, match: re.Match[str]) -> None:
    line = lines[number]
    if match["test"] != "main":
        facts.add("failed_test", line, match, "test")
    facts.add_all(line, match, error_file="path", error_line="line", error_column="column")
    # A message of one line is the last of its block, or a note of cargo follows it.
    below = lines.text_after(number + 1)
    message = _PANIC_MESSAGE.match(lines.text_after(number))
    if message and (not below or below.startswith("note: ")):
        facts.add_message(lines[number + 1], message)
    else:
        facts.mark_unread("error_message")


# --- FAIL: TestAdd (0.00s)
_GO_FAILED_TEST = re.compile(r"--- FAIL: (?P<failed_test>\S+) \(\d")
#     add_test.go:10: got 3, want 4
_GO_LOG_LINE = re.compile(
    r" {4,}(?P<test_file>\w+_test\.go):(?P<error_line>\d+): "
    r"(?:got (?P<actual>\S+), want (?P<expected>\S+)$)?"
)
# FAIL\texample.com/add\t0.003s
_GO_PACKAGE = re.compile(
    r"(?P<outcome>ok  |FAIL)[ \t]+(?P<package>[\w./~-]+)"
    r"(?:\t(?P<duration>\d[\d.]*s))?"
)
# # example.com/add [example.com/add.test]
_GO_BUILD_HEADING = re.compile(r"# (?P<failed_package>[\w./~-]+)(?: \[.+\])?$")
# ./add.go:7:2: undefined: total
_GO_ERROR = re.compile(
    r"(?:\./)?(?P<path>[\w./@-]+\.go):(?P<line>\d+):(?P<column>\d+): (?P<message>.+)$"
)
# panic: assignment to entry in nil map [recovered]
_GO_PANIC = re.compile(r"panic: (?P<message>.+?)(?: \[recovered\])?$")
# \t/project/add.go:12 +0x1d
_GO_FRAME = re.compile(r"\t(?P<path>\S+\.go):(?P<line>\d+)(?: \+0x[0-9a-f]+)?$")
# main.add(0x3, 0x4)
_GO_FUNCTION = re.compile(r"(?=.*\)$)(?P<function>[\w/](?:[\w.]*/)*\w*\.[\w.()*]+)\(")
# exit status 2
_GO_EXIT = re.compile(r"exit status (?P<exit_status>\d+)$")
_GO = (_GO_FAILED_TEST, _GO_LOG_LINE, _GO_BUILD_HEADING, _GO_EXIT)
# How lines begin that one of these patterns matches.
# --- FAIL: TestAdd (0.00s)
_GO_LINE = re.compile(
    r"--- FAIL: | {4,}\w+_test\.go:|(?:ok  |FAIL)[ \t]|# [\w./~-]|[\w./@-]+:\d+:\d|panic: "
    r"|\t\S+:\d|exit status "
)


def go(facts: Facts, lines: Lines) -> None:
    """Read go build, go vet, go test, and the panics of Go programs."""
    panicked = False
    has_frame = False  # the first frame of the panic has been read
    for number, line in lines.matching(_GO_LINE):
        text = line.text
        if match := _GO_PACKAGE.match(text):
            if match["outcome"] == "FAIL":
                facts.add_all(line, match, failed_package="package", duration="duration")
            facts.add("package_duration", line, match, "duration", name=match["package"])
        elif match := _GO_ERROR.match(text):
            facts.add_all(line, match, error_file="path", error_line="line", error_column="column")
            facts.add("error_line_in", line, match, "line", path=match["path"])
            facts.add_message(line, match)
            facts.add("error_message_in", line, match, "message", path=match["path"])
        elif match := _GO_PANIC.match(text):
            panicked = True
            facts.add_message(line, match)
        elif panicked and not has_frame and (match := _GO_FRAME.match(text)):
            has_frame = True
            facts.add_all(line, match, error_file="path", error_line="line")
            above = lines[number - 1]
            if function := _GO_FUNCTION.match(above.text):
                facts.add("function", above, function, "function")
        else:
            facts.add_first(line, _GO)


# a.c:4:16: error: no member named 'size' [-Werror]
_GCC = re.compile(
    r"(?P<path>[^\s:]+):(?P<line>\d+):(?:(?P<column>\d+):)? "
    r"(?P<level>fatal error|error|warning): (?P<message>.+?)(?: \[(?P<option>-W[\w=+-]+)\])?$"
)
# a.c: In function 'left':
_GCC_FUNCTION = re.compile(
    r"[^\s:]+: In (?:member )?function ['\u2018](?P<function>\w+)(?:\(.*\))?['\u2019]:$"
)
# /usr/bin/ld: a.c:(.text+0xe): undefined reference to `stock'
_LD_UNDEFINED = re.compile(
    r"(?:\S*ld: )?(?:[^\s:]+:)?(?P<path>[^\s:]+):(?:\(\.text\+0x[0-9a-f]+\)|\d+): "
    r"(?P<message>undefined reference to [`'\u2018]\w+['\u2019])$"
)
# /usr/bin/ld: /tmp/cc1.o: in function `main':
_LD_FUNCTION = re.compile(r".*: in function [`'\u2018](?P<function>\w+)['\u2019]:$")
# collect2: error: ld returned 1 exit status
_LD_FAILED = re.compile(r"collect2: error: ld returned (?P<exit_status>\d+) exit status$")
# make: *** [Makefile:4: native/types.o] Error 1
MAKE_FAILED = re.compile(
    r"make(?:\[\d+\])?: \*\*\* \[(?:[^\s:\]]+:(?P<makefile_line>\d+): )?(?P<target>[^\]]+)\] "
    r"Error (?P<exit_status>\d+)$"
)
# How lines begin that one of these patterns matches.
# a.c:4:16: error: no member named 'size' [-Werror]
_GCC_LINE = re.compile(
    r"[^\s:]+:(?:[^\s:]+:| In | error: | \*\*\* )|\S*ld: |.*: in function [`'\u2018]"
)


def gcc(facts: Facts, lines: Lines) -> None:
    """Read gcc, clang and their linkers, and the line by which make reports them."""
    looked_at = [(line, _GCC.match(line.text)) for _, line in lines.matching(_GCC_LINE)]
    findings = sum(1 for _, finding in looked_at if finding)
    for line, finding in looked_at:
        text = line.text
        if finding:
            _add_gcc_finding(facts, line, finding)
        elif match := _GCC_FUNCTION.match(text):
            if findings == 1:
                facts.add("function", line, match, "function")
        elif match := _LD_UNDEFINED.match(text):
            facts.add("error_file", line, match, "path")
            facts.add_message(line, match)
        else:
            facts.add_first(line, (_LD_FUNCTION, _LD_FAILED, MAKE_FAILED))


def _add_gcc_finding(facts: Facts, line: Line, match: re.Match[str]) -> None:
    path = match["path"]
    if match["level"] == "warning":
        facts.add_all(line, match, warning_message="message", warning_option="option")
        facts.add_all(line, match, warning_file="path", warning_line="line")
        return
    facts.add_all(line, match, error_file="path", error_line="line", error_column="column")
    facts.add("error_line_in", line, match, "line", path=path)
    facts.add("error_column_in", line, match, "column", path=path)
    facts.add_message(line, match)
    facts.add("error_message_in", line, match, "message", path=path)
