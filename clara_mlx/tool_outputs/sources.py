"""Tells a listing of source code from what a tool says: errors in code are no errors of a run."""

from __future__ import annotations

import re

# Lines of a text that are looked at, of each end.
_LINES = 120

# The share of lines that look like code from which on a text is a listing.
_LEAST = 0.6

# The same if the command names a file of source code and no program but one that prints it.
_LEAST_OF_PRINTED = 0.15

# cat src/app.py
_PRINTS = re.compile(
    r"(?:cat|head|tail|nl|less|more|bat|sed|awk|view|open|read|type|Get-Content"
    r"|git (?:show|blame))\b(?=.*\.\w)|\w{0,20}(?:path|file|uri)\w{0,20}=\S"
    r"|(?:\.{0,2}/|~/|[A-Za-z]:\\)?[\w.@+~/\\-]{1,300}\.\w{1,12}(?:[,:\s]|$)"
)
# report.log
_NO_SOURCE = re.compile(r"\.(?:log|out|err|txt|stdout|stderr|xml|json|csv|ya?ml)\b")
# What code ends with, or begins with.
#     return parse(text);
_CODE = re.compile(
    r"[ \t]*+(?:[})\]]{1,4}+[;,)]{0,2}+[ \t]*+$|(?:def|class|import|from|return|if|elif|else|for"
    r"|while|try|except|catch|switch|case|const|let|var|public|private|protected|static|package|using"
    r"|func|fn|struct|enum|interface|export|namespace|template|typedef|impl|pub|use|end|module|require"
    r"|@\w{1,40}+|assert|raise|throw|with|async|await|self\.|this\.|#include|#define|#if|#endif)"
    r"(?=[\s(:;{.!]|$)|//|/\*|\*/|\* |# |\"\"\"|'''|.{0,300}[;{]$"
    r"|[\w.\[\]'\"]{1,60}+ (?:[-+*/|&]?=|:=|=>|<-) \S|.{0,300}(?:\):|\) \{|=> \{|,|\(|\[|\{)$)"
)


def is_listing(text: str, command: str | None = None) -> bool:
    """Whether a text is a listing of source code, whole or cut off.

    Args:
        text: The text, without line numbers.
        command: The command that printed it, or a tool's arguments; None if they are not known.
    """
    lines = [line.rstrip() for line in text.split("\n") if line and not line.isspace()]
    looked_at = lines if len(lines) <= 2 * _LINES else lines[:_LINES] + lines[-_LINES:]
    code = sum(1 for line in looked_at if _CODE.match(line[:400]))
    least = _LEAST_OF_PRINTED if command and _prints_source(command) else _LEAST
    return code > 2 and code >= least * len(looked_at)


def _prints_source(command: str) -> bool:
    """Whether the last program of a command prints a file, or a tool's arguments name one."""
    last = re.split(r"&&|;|\n", command[:2_000])[-1].split("|")[0].strip()
    return bool(_PRINTS.match(last)) and not _NO_SOURCE.search(last)
