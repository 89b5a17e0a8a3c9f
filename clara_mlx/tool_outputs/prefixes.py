"""What stands before the text of each line: times, names of containers, numbers, signs of diffs.

Rules for outputs and for code begin where a line begins; whoever printed a line for somebody else
has put something there. The comment above an expression is a line that it matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from clara_mlx.tool_outputs.edits import Edit
from clara_mlx.tool_outputs.json_text import json_records
from clara_mlx.tool_outputs.pieces import find_all

Number = tuple[int, int]
"""Where, in a text, a line goes on after its number, and the number."""

Found = tuple[list[Edit], list[Number]]
"""The edits that remove prefixes, and the lines' numbers among them."""

# Lines in a row that have a prefix which could be something else.
_LEAST_LINES = 3

# The share of them whose number is one more than that of the line before.
_FOLLOWING = 0.6

# \n2024-05-06T04:58:15.2481291Z Fetching
_TIME = re.compile(
    r"\n\[?(?:\d{4}[-/]\d\d[-/]\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d++)?"
    r"(?:Z(?: \d\d[OE]\+?)?| UTC| ?[+-]\d\d:?\d\d| [AP]M)?\]?(?:(?=\n|\Z)|:? (?:[|-] )?|\t)"
)
# \nMay  6 04:58:15 web1 sshd[24200]: closed
_MONTH = re.compile(
    r"\n\[?(?:[A-Z][a-z]{2} |\d++:[A-Z] \d\d ?)?[ADFJMNOS][a-z]{2} (?:[ \d]\d|\d{4}) "
    r"\d\d:\d\d:\d\d(?:\.\d++)?(?: \d{4})?\]?(?:(?=\n|\Z)| )"
    r"(?:[\w.-]++ [\w./@()-]++(?:\[\d++\])?: )?"
)
# Who speaks, after a time.
# INFO [main] org.example.Main: started
_SPEAKER = re.compile(
    r"(?:[\w.-]++ )?[\w./@-]++\[[\w.]++\]: |\[\d++(?:-\d++)?\] (?:[\w.-]++@[\w.-]++ )?"
    r"| *+(?:\[[^\]\n]++\] ++)?(?:INFO|DEBUG|TRACE) ++(?:\d++ --- ++)?"
    r"(?:\[[^\]\n]++\] ++)?(?:[\w.$/\[\]-]++ *+[:-] )?"
)
# A kernel, a builder of images, valgrind, a runner of jobs, strace, a server in Go, a telephone.
# \n#12 2.465 npm error
_MARK = re.compile(
    r"\n(?:\[ *+\d++\.\d{6}\] (?:\[ *+[TC]\d++\] )?|#\d++ \d++\.\d++ "
    r"|(?:==\d++==|--\d++--)(?: |(?=\n|\Z))|##\[(?:group|endgroup|command|section|debug)\]"
    r"|\[pid ++\d++\] |[IW]\d{4} \d\d:\d\d:\d\d\.\d++ ++\d++ (?=[\w.-]++:\d)"
    r"|\d\d-\d\d \d\d:\d\d:\d\d\.\d++ ++\d++ ++\d++ )"
)
# \ntest\tRun tests\t2024-05-06T04:58:15Z
_STEP = re.compile(r"\n[^\t\n]++\t[^\t\n]++\t(?=\d{4}-\d\d-\d\dT\d\d:)")
# \n[pod/web/app] started
_NAME = re.compile(
    r"\n(?:(?P<certain>(?:[A-Za-z][\w.-]*+(?:(?<=[_-]\d)|(?<=[_-]\d\d))|\d++\|[\w.-]++) *+\|"
    r"(?: |(?=\n|\Z)))|[A-Za-z][\w.@-]*+ *+\|(?: |(?=\n|\Z))"
    r"|\[[A-Za-z][\w./:@-]*+\] |[A-Za-z@][\w./@-]*+:[a-z][\w-]*+: )"
)
# \n{"returncode": 0, "output":
_WRAPPER = re.compile(
    r"\n[\[{},\] \t]*+(?<=[\[{ ])"
    r"(?:['\"][\w $./-]*+['\"][ \t]*+[:,]?[ \t]*+"
    r"(?:[\[{]++|(?:0|[Tt]rue|[Ff]alse|null|None)[ \t]*+,[ \t]*+)?)++(?<=[:, ])(?=\n|\Z)"
)
# What a line says of itself is no name of who printed it.
# [ERROR]
_LEVEL = re.compile(
    r"\[?(?:info|warn|err|debug|fatal|trace|fail|pass|ok|skip|succ|note|crit|done|miss|inf|wrn|dbg"
    r"|emerg|alert|panic)\w*+[ \]:|]",
    re.IGNORECASE,
)
# \n   126\tdef close(self):
_NUMBER = re.compile(r"\n[ \t]*+(\d{1,7}+)(?:\t|\u2192)")

# Where grep and others found a line.
_PLACE = (
    r"[ \t]*+(?:[\w.@+~/-]++:|(?:[\w.@+~/]++|-(?!\d++-))*+-)?"
    r"(?P<%s>\d{1,7}+)(?:[:-]|[ \t]?[|\u2192]|\t) ?"
)
# \ntests/test_a.py:126:def close(self):
_CODE_PREFIX = re.compile(
    rf"\n(?:(?P<sign>(?:> ?)++(?:[+-](?![+-]))?|[+-](?![+-]))"
    rf"(?:{_PLACE % 'signed'}|[ \t]*+(?P<beside>\d{{1,7}}+) )?|{_PLACE % 'number'})"
)


def records(text: str) -> Found:
    """What JSON puts around each line of an output."""
    return json_records(text), []


def wrappers(text: str) -> Found:
    """Lines of JSON before a text that was unfolded, if they say only names and an exit code 0."""
    ends = [
        (one.start(), min(one.end(), len(text)), "")
        for one in find_all(_WRAPPER, "\n" + text)
        if one[0].rstrip().endswith(('":', "':"))
    ]
    return ends, []


def times(text: str) -> Found:
    """Times, and who or which step of a run speaks at that time."""
    edits: list[Edit] = []
    for pattern in (_STEP, _TIME, _MONTH):
        for one in find_all(pattern, "\n" + text):
            start, end = one.start(), one.end() - 1
            if pattern is _TIME and (speaker := _SPEAKER.match(text, end)):
                end = speaker.end()
            edits.append((start, end, ""))
    return sorted(edits), []


def marks(text: str) -> Found:
    """What a program, a builder or a kernel puts before each line: numbers of processes, times."""
    return [(one.start(), one.end() - 1, "") for one in find_all(_MARK, "\n" + text)], []


def names(text: str) -> Found:
    """Names of containers, pods and steps before the lines that they printed."""
    edits: list[Edit] = []
    found = [
        one for one in find_all(_NAME, "\n" + text) if one["certain"] or not _LEVEL.match(one[0], 1)
    ]
    for run in _runs(found, text):
        certain = len(run) >= _LEAST_LINES and 2 * len({one[0] for one in run}) <= len(run)
        edits += [(one.start(), one.end() - 1, "") for one in run if certain or one["certain"]]
    return edits, []


def line_numbers(text: str) -> Found:
    """The numbers that cat -n, nl and tools that read files put before lines."""
    edits: list[Edit] = []
    numbers: list[Number] = []
    for run in _runs(find_all(_NUMBER, "\n" + text), text):
        found = [int(one[1]) for one in run]
        steps = sum(two == one + 1 for one, two in pairwise(found))
        if len(run) >= _LEAST_LINES and steps >= _FOLLOWING * (len(run) - 1):
            edits += [(one.start(), one.end() - 1, "") for one in run]
            numbers += zip((one.end() - 1 for one in run), found, strict=True)
    return edits, numbers


def places_in_code(text: str) -> Found:
    """What stands before lines of code: ``path:12:`` of grep, signs of diffs, quotation marks.

    This takes off more than is certain: what remains is for finding names, not for reading.
    """
    edits: list[Edit] = []
    numbers: list[Number] = []
    for one in find_all(_CODE_PREFIX, "\n" + text):
        edits.append((one.start(), one.end() - 1, ""))
        if number := one["number"] or one["signed"] or one["beside"]:
            numbers.append((one.end() - 1, int(number)))
    return edits, numbers


def _runs(found: list[re.Match[str]], text: str) -> Iterator[list[re.Match[str]]]:
    """The prefixes of lines in a row; one line between two may be empty."""
    run: list[re.Match[str]] = []
    following = -1
    for one in found:
        start = one.start()
        if run and start != following and not text.startswith("\n", following, start):
            yield run
            run = []
        run.append(one)
        following = text.find("\n", one.end() - 1) + 1
    if run:
        yield run
