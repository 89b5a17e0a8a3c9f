"""The names of errors: the codes of tools and systems, and exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.spans import MAX_LENGTH, Span, every_match

# F401, E0382, TS2322
_CODE = r"([A-Z]{1,5}\d{3,5})(?=[\]:)\s])"
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

# json.JSONDecodeError
_EXCEPTION_END = re.compile(
    r"(?:Error|Exception|Warning|Failure|Fault|KeyboardInterrupt|SystemExit|StopIteration"
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


codes = every_match(_CODES)
