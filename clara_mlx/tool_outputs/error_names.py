"""The names of errors: the codes of tools and systems, and exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.spans import MAX_LENGTH, Span

# F401, E0382, TS2322
_CODE = r"([A-Z]{1,8}\d{3,5})(?=[\]:)\s])"
# error TS2322:
_CODES = re.compile(
    rf"\n{_CODE}|: {_CODE}|\[{_CODE}|\({_CODE}|e(?<!\we)rror {_CODE}|w(?<!\ww)arning {_CODE}"
    r"|  \[([a-z]{2,40}+(?:-[a-z]{1,40}+){0,6}+)\]$"  # mypy's
    r"|\[(-W[\w=+-]{1,60}+)\]"  # gcc's and clang's
    r"|\[(Errno -?\d{1,5}+)\]"
    r"|e(?<!\we)xit(?: code| status|ed with code|ed with status) -?\d{1,5}+\b"
    r"|\nmake(?:\[\d{1,4}\])?: \*\*\* .{1,300}(\bError \d{1,3}+)$"
    r"|S(?<!\wS)IG(?:ABRT|BUS|FPE|HUP|ILL|INT|KILL|PIPE|QUIT|SEGV|TERM|TRAP)\b"
    r"|E(?<!\wE)(?:ACCES|ADDRINUSE|AGAIN|AI_AGAIN|BADF|BUSY|CONNABORTED|CONNREFUSED|CONNRESET"
    r"|EXIST|HOSTUNREACH|INTR|INVAL|IO|ISDIR|LIFECYCLE|LOOP|MFILE|NAMETOOLONG|NETUNREACH|NFILE"
    r"|NOENT|NOLOCK|NOMEM|NOSPC|NOTDIR|NOTEMPTY|NOTFOUND|PERM|PIPE|RESOLVE|ROFS|TIMEDOUT|XDEV)\b",
    re.MULTILINE,
)

# CVE-2021-44228, ORA-00942
_NUMBERED = re.compile(
    r"C(?<!\wC)(?:VE-\d{4}-\d{4,7}+|WE-\d{2,4}+)\b|G(?<!\wG)HSA(?:-[2-9cfghjmpqrvwx]{4}){3}\b"
    r"|R(?<!\wR)(?:USTSEC-\d{4}-\d{4}|MAN-\d{5})\b|S(?<!\wS)C\d{4}\b|D(?<!\wD)L\d{4}\b"
    r"|O(?<!\wO)RA-\d{4,5}+\b|P(?<!\wP)LS-\d{4,5}+\b"
    r"|T(?<!\wT)NS-\d{4,5}+\b|S(?<!\wS)P2-\d{4}\b"
    r"|S(?<!\wS)QLSTATE[ :=]{0,2}+\[?[0-9A-Z]{5}\]?(?!\w)"
    r"|E(?<!\wE)RROR (?:\d{4}+ \(\w{5}\))|E(?<!\wE)RR_[A-Z][A-Z\d_]{2,60}+\b"
    r"|o(?<!\wo)s error \d{1,6}+\b|e(?<!\we)rrno[ =:]{1,2}+\d{1,4}+\b"
    r"|0x8(?<!\w...)[0-9A-Fa-f]{7}\b"
    r"|E(?<!\wE)xit(?:ed)? (?:with )?[Cc]ode[: ]{1,12}+-?\d{1,10}+\b"
    r"|e(?<!\we)xited with (?:code|status)? ?-?\d{1,10}+\b"
    r"|r(?<!\wr)eturned exit code -?\d{1,10}+\b"
    r"|s(?<!\ws)ignal \d{1,2}+\b|S(?<!\wS)egmentation fault|O(?<!\wO)OMKilled"
    r"|C(?<!\wC)rashLoopBackOff"
    r"|I(?<!\wI)magePullBackOff|E(?<!\wE)rrImagePull|c(?<!\wc)lippy::[a-z_]{3,60}+"
)
# HTTP/1.1 404 Not Found
_STATUS = re.compile(
    r"H(?<!\wH)TTP(?:/[\d.]{1,3}+)?\"? ([1-5]\d\d(?: [A-Z][A-Za-z'-]{1,20}+){0,3}+)(?!\w)"
    r"|s(?<!\ws)tatus(?: [Cc]ode)?\"?[ :=]{1,3}+([1-5]\d\d)(?![\w.])"
    r"|S(?<!\wS)tatus(?: [Cc]ode)?\"?[ :=]{1,3}+([1-5]\d\d)(?![\w.])"
    r"|4(?<![\w.-]4)(\d\d (?:Bad|Unauthorized|Forbidden|Not|Method|Request|Conflict|Gone|Payload"
    r"|Unprocessable|Too)(?: [A-Z][a-z]{2,12}+){0,3}+)"
    r"|5(?<![\w.-]5)(\d\d (?:Internal|Not|Bad|Service|Gateway)(?: [A-Z][a-z]{2,12}+){1,3}+)"
)
# What the sanitizers of compilers and kernels call their findings: heap-buffer-overflow
_SANITIZED = re.compile(
    r"h(?<![\w-]h)eap-(?:buffer-overflow|use-after-free|buffer-underflow)"
    r"|s(?<![\w-]s)tack-(?:buffer-(?:over|under)flow|overflow|use-after-(?:return|scope)"
    r"|out-of-bounds)"
    r"|s(?<![\w-]s)lab-(?:out-of-bounds|use-after-free)|g(?<![\w-]g)lobal-(?:buffer-overflow"
    r"|out-of-bounds)"
    r"|d(?<![\w-]d)ynamic-stack-buffer-overflow|c(?<![\w-]c)ontainer-overflow"
    r"|u(?<![\w-]u)se-after-(?:free"
    r"|poison|scope)|d(?<![\w-]d)ouble-free|a(?<![\w-]a)lloc-dealloc-mismatch"
    r"|u(?<![\w-]u)ndefined-behavior"
    r"|u(?<![\w-]u)se-of-uninitialized-value|n(?<![\w-]n)ull-ptr-deref"
    r"|v(?<![\w-]v)malloc-out-of-bounds"
    r"|o(?<![\w-]o)ut-of-bounds|d(?<![\w-]d)ata race"
)
# The rules of checkers, in brackets or at the end of a line: ] [AvoidObjectArrays] say
_RULES = re.compile(
    r": \[([A-Z][A-Za-z]{4,60}+)\] |\] \[([A-Z][A-Za-z]{4,60}+)\] "
    r"|: [CWEFR]: (?:\[Correctable\] )?([A-Z][A-Za-z]{2,30}+/[A-Z][A-Za-z]{2,60}+):"
    r"|\(([a-z]{3,30}+-[a-z-]{1,90}+)\)(?=\n|\Z)"
)
# \n  6:18  error  Missing semicolon  semi
_RULE_OF_FINDING = re.compile(
    r"\n[ \t]{1,8}+\d{1,6}+:\d{1,5}+[ \t]{1,8}+(?:error|warning|info|[✖⚠✘])[ \t]([^\n]{1,400}+)"
)
#   semi
_LAST_WORD = re.compile(r"[ \t]{2}(@?[a-z][a-z\d]*+(?:[/-][a-z\d]++)*+)[ \t]*+\Z")


def codes(text: str) -> Iterator[Span]:
    """Codes of errors and findings, statuses, signals, and the rules that checkers name."""
    for pattern in (_CODES, _NUMBERED, _SANITIZED, _RULES):
        for match in pattern.finditer(text):
            yield match.span(match.lastindex or 0)
    for match in _STATUS.finditer(text):
        group = match.lastindex or 0
        yield match.start(group) - (group > 3), match.end(group)
    for match in _RULE_OF_FINDING.finditer(text):
        if rule := _LAST_WORD.search(text, max(match.start(1), match.end() - 120), match.end()):
            yield rule.span(1)


# json.JSONDecodeError
_EXCEPTION_END = re.compile(
    r"(?:Error|Exception|Warning|Failure|Fault|ExceptionGroup|KeyboardInterrupt|SystemExit"
    r"|StopIteration"
    r"|StopAsyncIteration|GeneratorExit)(?=\.*+(?!\w))"
)
# json.JSONDecodeError
_DOTTED_NAME = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*+\Z")
_EXCEPTION_ENDINGS = ("Error", "Exception", "Warning", "Failure", "Fault")
_OTHER_EXCEPTIONS = {
    "KeyboardInterrupt",
    "SystemExit",
    "StopIteration",
    "StopAsyncIteration",
    "GeneratorExit",
    "ExceptionGroup",
    "BaseExceptionGroup",
}


def exceptions(text: str) -> Iterator[Span]:
    """Names of exceptions, with the modules written before them."""
    last = 0
    for match in _EXCEPTION_END.finditer(text):
        end = match.end()
        dotted = _DOTTED_NAME.search(text, max(last, end - MAX_LENGTH), end)
        last = end
        if dotted is None or not (
            dotted[0].endswith(_EXCEPTION_ENDINGS) or dotted[0] in _OTHER_EXCEPTIONS
        ):
            continue
        name = dotted[0].rpartition(".")[2]
        if name not in _EXCEPTION_ENDINGS and name[0].isupper() and ".." not in dotted[0]:
            yield dotted.span()
