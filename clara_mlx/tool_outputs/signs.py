"""The signs by which a line of any tool's output says how a run ended, or what went wrong.

They stand anywhere in a line, behind whatever a tool writes before its messages. Source code and
prose have such words, too; `listing.is_listing` tells the texts in which they mean nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

Weight = Literal["verdict", "failed", "error", "trouble", "warning", "finding"]
"""What a line says: how a run ended; that a test failed; an error by its very word; that something
did not work; a warning; what a checker or a search found at a place in a file."""

# Characters of a line in which signs are looked for: what a tool says comes early in its lines.
_LINE = 400

# Characters of a line by which it is like another one.
_LIKE = 160
_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))
# src/a.py:12
_PARTICULARS = re.compile(
    r"(?<![\w.@+-])[\w.@+-]*+[/\\][\w.@+/\\-]*+|'[^'\n]{0,99}+'|\"[^\"\n]{0,99}+\"|\d++"
)

# Lines of which it is kept at hand what they say.
_KEPT_LINES = 1 << 13

# Different lines that are read; what an output says after so many, it said before.
_MOST_LINES = 5_000


class Sign(NamedTuple):
    """A line with a sign.

    Attributes:
        weight: What the line says.
        line: Where the line starts in the text.
        start: Where the sign starts in the text; where the line does, if it is like one above.
        like: What the line says, without the numbers, paths and quotations that it has.
    """

    weight: Weight
    line: int
    start: int
    like: str


# 3 failed
_COUNTED = re.compile(
    r"(?<![:.\d\w-])\d{1,9}+(?: (?:tests?|specs?|checks?|targets?|jobs?|files?|steps?|scenarios?"
    r"|suites?|hosts?|builds?|unique|total|high|critical|new|previous|fixable|uncovered"
    r"|packages?))?[ \t](?:FAILED|PASSED|passed|failed|failing|passing|pending|skipped"
    r"|errors?|failures?|warnings?|problems?|offenses?|violations?|vulnerabilit(?:y|ies)|issues?"
    r"|defects?|mistakes?|leaks?"
    r"|passes|fails|changed|reformatted|succeeded|up-to-date|executed|ignored|disabled|deprecated"
    r"|unreachable|insertions?|deletions?|transmitted|received|to (?:add|change|destroy|import)"
    r"|added|removed|destroyed|imported|upgraded|installed|newly installed|not upgraded|examples?"
    r"|assertions?|rows? (?:affected|in set)|Warning\(s\)|Error\(s\))(?!\w)"
)
# Tests run: 3
_NAMED_COUNT = re.compile(
    r"\b(?:Tests run|Tests|Test Suites|Test Files|Failures|Errors|Failed|Passed|Total tests"
    r"|Assertions|Scenarios|Score|Warnings|failures|errors|failed|passed|not ok|pass|fail|PASS"
    r"|FAIL"
    r"|ok|rc|TOTAL|Restart Count|Exit Code|exit_code|returncode|exitCode)"
    r"[ \t]{0,12}+[:=][ \t]{0,24}+\d|\bFailed (?:Tests|Suites) \d"
    r"|^[#\u2139] (?:fail|pass|tests|skipped|suites) {1,3}+\d"
)
# BUILD FAILURE
_STATED = re.compile(
    r"\b(?:BUILD|COMPILATION|Build|Compilation|Test Run|TEST RUN|TESTS|Tests|Deployment|Job"
    r"|Pipeline|Transaction|Installation|Upgrade|Migration|Backup|Restore|Workflow|Run|Command"
    r"|Task|Process)"
    r" {1,4}+(?:FAILURE|FAILED|SUCCESS(?:FUL)?|SUCCEEDED|[Ff]ailed|[Ss]ucceeded|successful|ERROR"
    r"|[Cc]ompleted?|ABORTED|[Ff]inished|terminated|rolled back|passed|timed out)\b"
)
# exited with code 137
_EXIT = re.compile(
    r"\b[Ee]xit(?:ed|ing|s)?(?: with)?(?: (?:value|code|status|error)){1,2}+[ \t:=]{1,24}+-?\d"
    r"|\b[Ee]xit(?:ed)? -?\d|\breturn(?:ed|s)? (?:an? )?(?:non-?zero )?(?:error )?(?:exit )?"
    r"(?:code|status)[ :=]{1,4}+-?\d|\breturned -?\d{1,3} exit status|\bkilled by SIG"
    r"|\bError \d{1,3}$|\bsignal(?::| )\d{1,2}\b"
)
# Plan: 1 to add
_SUMMARY = re.compile(
    r"\b(?:(?:Plan|SUMMARY|test result|Result|RESULT|Verdict|VERDICT|Conclusion|Outcome|Reason"
    r"|Last State|Active): {0,24}+(?=\S)|(?:Apply|Destroy) complete!|PLAY RECAP)"
    r"|\b(?:definitely|indirectly) lost: (?!0 bytes)"
    r"|\b(?:No changes|[Nn]o issues found|[Nn]o problems?|[Aa]ll checks passed|[Aa]ll tests passed"
    r"|Everything up-to-date|Already up to date|nothing to commit|[Uu]p to date"
    r"|Compiled successfully|Compiled with|Failed to compile|rolled out|has been rated at"
    r"|tests passed|tests failed|Aborting|Interrupted:|Done in|Completed in"
    r"|packet loss|Ran \d{1,9}+ tests?|Automatic merge failed|merge failed|syntax is ok"
    r"|test is successful|Transaction complete|[Cc]ompilation terminated|not mergeable"
    r"|completed (?:with|in|at|successfully))\b"
    r"|^\W{0,8}+Successfully\b|\bsuccessfully\W{0,3}$|^\W{0,8}+Finished (?!at )"
    r"|^\W{0,8}+(?:OK|PASS|PASSED|FAIL|FAILED|FAILURES?!|ERROR|SUCCESS|DONE|Done\.|Success)"
    r"(?: {0,2}+[(!].{0,120}+)?\W{0,8}+$"
)

# [  FAILED  ] Sum.Adds, not ok 3 - adds, --- FAIL: TestAdd, ✕ adds
_FAILED = re.compile(
    r"\[  (?:FAILED|TIMEOUT|ERROR) {0,4}+\] {1,4}+\D|\bnot ok \d|--- FAIL:|<<< (?:FAILURE|ERROR)!"
    r"|\*\*\*(?:Failed|Timeout|Exception|Not Run)|^[ \t]{0,8}+[✕✗✖×●] {1,3}+(?!\d)"  # noqa: RUF001
    r"|^[ \t]{0,2}+(?:FAIL|FAILED|ERROR|ERRORED):?[ \t]{1,4}+"
    r"(?:(?=\S{1,120}[./:_>\\])|(?<=: )\S{1,120}+$)"
    r"|^[ \t]{1,6}+Failed {1,2}+[\w.]|^rspec \./|\.\.\. (?:FAIL|FAILED|ERROR)\b"
    r"|^[ \t]{0,4}+\d{1,4}+\) \S|[ \t](?:FAILED|FAIL)[ \t]{0,4}+(?=$|\[|\()"
    r"|\((?:Failed|Timeout)\)$|^[ \t]{0,4}+(?:X|FAILED:) \S"
)
# ERROR: no such table, error[E0382]: moved, runtime error: overflow
_ERROR = re.compile(
    r"\b(?:ERROR|FATAL|CRITICAL|SEVERE|PANIC|EMERG|ALERT|Fatal|FAILURE|BUG|CONFLICT|O(?:OPS|ops))"
    r"(?:(?=[\]\s:|!(>,=-])|$)|\[(?:error|fatal|ERR|emerg|alert|crit|E)\]|##\[error\]"
    r"|\bnpm (?:ERR!|error) \S"
    r"|\b[Ee]rror(?:\[[\w:-]{1,40}+\]| [A-Z]{1,8}\d{2,5}| ?\([\w, -]{1,20}+\)"
    r"| \d{1,6}+(?: \(\w{1,8}+\))?)?(?::|[ \t]-[ \t]|[ \t]{2,8}+\S| at [\w/.])"
)
# org.shop.NoCoinException: empty
_RAISED = re.compile(
    r"\b[A-Z]\w{0,80}+(?:(?<=Error)|(?<=Exception)|(?<=Failure)|(?<=Group)|(?<=Fault))"
    r"(?:$|:| \(| \[| - )|^(?:KeyboardInterrupt|SystemExit|StopIteration|GeneratorExit)\b"
)
# thread 'main' panicked at src/main.rs:7:9:
_CRASHED = re.compile(
    r"\b(?:fatal:|panicked at|panic: |[Cc]aused by[ :]|Uncaught |uncaught exception|Unhandled )"
    r"|\b(?:Exception in|Segmentation fault|core dumped|Bus error|Floating point exception"
    r"|undefined reference to|terminate called|[Cc]ommand not found|No such file or"
    r"|Permission denied|Access is denied|Out of memory|Killed process|OOMKilled|CrashLoopBackOff"
    r"|(?:Err)?Image(?:Pull)?(?:BackOff)?(?<=Off|ull)|general protection fault|NULL pointer deref"
    r"|kernel BUG|[Ss]tack overflow|double free|[Dd]eadlock|Sanitizer:|data race)\b"
    r"|\b(?:Indirect|Direct) leak of|\b(?:READ|WRITE|Read|Write|Invalid (?:read|write)) of size \d"
    r"|\b[Aa]ssertion (?:failed|[`'\"(])|ASSERTION FAILED|Sanitizer: "
    r"|\b(?:ORA|PLS|TNS|RMAN)-\d{4,5}\b|SQLSTATE|^(?:E|e): |\bmake(?:\[\d{1,3}\])?: \*\*\*"
    r"|\bHTTP/[\d.]{1,3}+\"? [45]\d\d\b|❌"
)
# could not connect, cannot find symbol, connection refused
_TROUBLE = re.compile(
    r"(?<![\w-])(?:[Cc]ould ?n[o']t|[Cc]an(?:not|'t| not)|[Uu]nable to|[Ff]ailed|FAILED"
    r"|[Ff]ailure|FAIL|[Nn]ot (?:found|defined|allowed|permitted|supported|exist)"
    r"|[Dd]oes ?n[o']t exist|[Dd]enied"
    r"|[Rr]efused|[Tt]imed out|[Tt]imeout|[Ii]nvalid|[Uu]nexpected|[Uu]ndefined|[Uu]nknown"
    r"|[Uu]nresolved|[Uu]nrecognized|[Mm]issing|[Mm]ismatch|[Ii]llegal|[Rr]ejected|[Aa]borted"
    r"|[Kk]illed|[Uu]nreachable|[Ee]xpired?|[Uu]navailable|[Cc]onflict|[Ii]nterrupted"
    r"|[Dd]isconnect"
    r"|[Nn]o such|[Nn]o space left|[Vv]iolat|[Oo]verflow|[Oo]ut of (?:range|bounds|memory)"
    r"|[Dd]eclined|[Ee]xceeded|[Cc]orrupt|[Bb]roken|[Bb]ad|[Ll]eaked|[Cc]rash|[Uu]nhealthy"
    r"|[Ee]rrors?\b|[Ee]xception\b|[Ff]atal|[Bb]ack-off|BackOff|Evicted|[Uu]nauthorized"
    r"|[Ff]orbidden"
    r"|CVE-\d{4}-\d{4,7})"
)
# warning: unused variable
_WARNING = re.compile(
    r"\b(?:WARN(?:ING)?|[Ww]arning|\w{1,60}Warning|[Dd]eprecat(?:ed|ion)|CAUTION|Attention"
    r"|NOTICE)\b|⚠"
)
# src/till.go:12:5: this branch is empty (SA9003)
_FINDING = re.compile(
    r"[ \t]{0,6}+(?:(?=[\d./@+~\\-]{0,60}+[A-Za-z_])[\w./@+~\\-]{1,200}+(?::\d{1,6}+(?::\d{1,6}+)?"
    r"|\(\d{1,6}+(?:,\d{1,6}+)?\)):? {1,8}+\S"
    r"|\d{1,6}+:\d{1,5}+(?: {2}|\t)[ \t]{0,8}+\S)"
)
_SIGNS: tuple[tuple[Weight, re.Pattern[str]], ...] = (
    ("failed", _FAILED),
    *(("verdict", one) for one in (_COUNTED, _NAMED_COUNT, _STATED, _EXIT, _SUMMARY)),
    *(("error", one) for one in (_ERROR, _RAISED, _CRASHED)),
    ("trouble", _TROUBLE),
    ("warning", _WARNING),
)
# Parts of the words above: a line without one is read no further. Several patterns, each of which
# is small enough to be proved linear. Parts with one first letter are together, because each place
# of a line is compared with every branch.
_HINTS = (
    # a part of a word above, from a to d
    re.compile(
        r"a(?:bort|ttention|lert|ssert|ctive: )|b(?:roken|ad|ack-?off|ug)"
        r"|c(?:annot|an't|an not|ould ?n|onflict|orrupt|rash|ve-|aution|ritical|aused by|ore dump"
        r"|omplete|onclusion)"
        r"|d(?:enied|isconnect|eclin|eprec|eadlock|ouble free|one|ata race)"
    ),
    # a part of a word above, from e to m
    re.compile(
        r"e(?:rr|xit|xcept|xpire|xceed|victed|merg|(?<=^e): )"
        r"|f(?:ail|atal|orbid|inished|ault$|ault:)"
        r"|g(?:eneral prot|roup(?:$|:| \())|http/|i(?:nvalid|llegal|nterrupt|magepull)|job"
        r"|k(?:ill|ernel bug|(?<=^k)eyboardi)|l(?:eak|ast state|ost:)|m(?:issing|ismatch)"
    ),
    # a part of a word above, from n to r
    re.compile(
        r"n(?:ot (?:ok|found|def|allow|perm|supp|exist|merg)|'t exist"
        r"|o (?:such|space|changes|issue|problem)|otice|ull pointer|othing to)"
        r"|o(?:verflow|ut of |ops|ra-|f size|utcome|(?<=\bo)k\b)|p(?:ass|anic|ls-|lan: )"
        r"|r(?:efused|eject|man-|c[:=]|estart c|eturned|ecap|esult|eason|olled|ated at|an \d"
        r"|(?<=^r)spec)"
    ),
    # a part of a word above, from s to w
    re.compile(
        r"s(?:evere|anitizer|qlstate|tack over|ignal|hut|ummary|uccess|yntax is|cenario|core"
        r"|(?<=^s)ystemexit)|t(?:ime(?:d |-)?out|erminate|ns-|otal)"
        r"|u(?:nable|nexpected|ndefined|nknown|nre|navail|nhealthy|nauth|nhandled|ncaught"
        r"|p.to.date)|v(?:iolat|erdict)|warn"
    ),
    # a number of something above, or a mark
    re.compile(
        r"\d(?:\) | to | (?:\w+ )?(?:chang|issue|problem|offense|vuln|defect|mistake|execut|ignored"
        r"|disabled|insert|delet|transmit|receiv|added|remov|destroy|import|upgrad|instal|newly"
        r"|not up|example|pending|skipp|rows))|\*\*\*|[⚠✕✗✖×●❌]"  # noqa: RUF001
    ),
)


@lru_cache(maxsize=4)
def signs(text: str) -> tuple[Sign, ...]:
    """The lines of a text that say how a run ended or what went wrong, equal ones once.

    Args:
        text: The text as a reader sees it, without what its lines begin with.
    """
    found: list[Sign] = []
    lines: set[str] = set()
    read: dict[str, tuple[Weight, int] | None] = {}
    start = 0
    for line in text.split("\n"):
        if line and line not in lines and len(lines) < _MOST_LINES:
            lines.add(line)
            key = line[:_LIKE].translate(_NO_DIGITS)
            if key not in read:
                read[key] = _look_for_sign(line[:_LINE])
            if sign := read[key]:
                weight, begin = sign
                like = _PARTICULARS.sub("", line[:_LIKE])
                found.append(Sign(weight, start, start + min(begin, len(line)), like))
        start += len(line) + 1
    return tuple(found)


# Agents see the same lines again and again.
@lru_cache(maxsize=_KEPT_LINES)
def _look_for_sign(line: str) -> tuple[Weight, int] | None:
    """What a line says, and where it says so."""
    lower = line.lower()
    for hint in _HINTS:
        if hint.search(lower):
            for weight, pattern in _SIGNS:
                if match := pattern.search(line):
                    return weight, match.start()
            break
    return ("finding", 0) if _FINDING.match(line) else None


def first_trouble(text: str) -> int | None:
    """Where the first line starts that tells of an error, or else of trouble; None if none does."""
    found = signs(text)
    for weights in (("failed", "error"), ("trouble", "warning")):
        for sign in found:
            if sign.weight in weights:
                return sign.line
    return None
