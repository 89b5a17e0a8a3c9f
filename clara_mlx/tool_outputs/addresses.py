"""What says where in a network something is: URLs, addresses of hosts, and their ports."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.spans import MAX_LENGTH, Span

# https://
_AFTER_SCHEME = re.compile(r"://(?<=[A-Za-z0-9+.-]{2}://)")
# example.org/a?b=1#c
_URL = re.compile(r"[^\s\"'<>`\\^{}|\x00-\x1f]++")
# https
_SCHEME = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}+\Z")
_SCHEME_CHARACTERS = 16


def urls(text: str) -> Iterator[Span]:
    """URLs, without the punctuation that follows them."""
    last = 0
    while colon := _AFTER_SCHEME.search(text, last):
        before = max(last, colon.start() - _SCHEME_CHARACTERS)
        last = colon.end()
        scheme = _SCHEME.search(text, before, colon.start())
        rest = _URL.match(text, last) if scheme else None
        if scheme is None or rest is None or scheme[0] == "file":  # that is a path
            continue
        start = scheme.start()
        last = end = rest.end()
        if end - start > 2 * MAX_LENGTH:
            continue
        unclosed = text.count("(", start, end) - text.count(")", start, end)
        while text[end - 1] in ".,;:!?*)]" and not (text[end - 1] == ")" and unclosed >= 0):
            end -= 1
            unclosed += text[end] == ")"
        if text[end - 3 : end] != "://":
            yield start, end


# 10.0.0.12:8080
_IN_NUMBERS = re.compile(
    r"\d(?<![\w.:-].)\d{0,2}+(?:\.\d{1,3}+){3}(?![\w.]*\w)(?::\d{1,5}+|/\d{1,2}+)?(?!\w|:\d)"
)
# [::1]:8080
_IN_BRACKETS = re.compile(r"\[(?=[0-9a-f]{0,4}+:)[0-9a-f:]{2,39}+\]:\d{2,5}+(?!\w)")
# localhost:5432
_HERE = re.compile(r"l(?<!\wl)ocalhost:\d{2,5}+(?!\w)")
# db.example.com:5432
_PORT = re.compile(
    r"\.(?:com|org|net|io|dev|edu|app|lan|local|internal|cloud|svc|test|example):\d{2,5}+(?!\w)"
)
# db.example
_HOST = re.compile(r"(?<![\w.@/-])[a-z\d][a-z\d.-]*+\Z")
_HOST_CHARACTERS = 253
# 0a:1b:2c:3d:4e:5f
_OF_A_CARD = re.compile(r"[0-9a-fA-F](?<![\w:.-].)[0-9a-fA-F](?:[:-][0-9a-fA-F]{2}){5}(?![\w:-])")
# fe80::1ff:fe23:4567
_IN_HEXADECIMAL = re.compile(
    r"[0-9a-f](?<![\w:.-].)[0-9a-f]{0,3}+(?::[0-9a-f]{1,4}+){1,6}+::(?:[0-9a-f]{1,4}+"
    r"(?::[0-9a-f]{1,4}+){0,5}+)?(?![\w:.])|[0-9a-f](?<![\w:.-].)[0-9a-f]{3}::(?:[0-9a-f]{1,4}+"
    r"(?::[0-9a-f]{1,4}+){0,5}+)(?![\w:.])"
)
# What these patterns match has such a part, which is found faster.
_OTHERS = (
    ("]:", _IN_BRACKETS),
    ("localhost:", _HERE),
    (":", _OF_A_CARD),
    ("::", _IN_HEXADECIMAL),
)


def addresses(text: str) -> Iterator[Span]:
    """Addresses of hosts in numbers, and hosts with a port; no netmask, and no time of day."""
    for match in _IN_NUMBERS.finditer(text):
        found = match[0]
        parts = [int(part) for part in re.split(r"[.:/]", found)[:4]]
        # Without a port, this very machine, all of them, and netmasks say nothing.
        if max(parts) < 256 and (":" in found or parts[0] not in (0, 127, 255)):
            yield match.span()
    for match in _PORT.finditer(text) if ":" in text else ():
        before = max(0, match.start() - _HOST_CHARACTERS)
        if host := _HOST.search(text, before, match.start()):
            yield host.start(), match.end()
    for part, pattern in _OTHERS:
        for match in pattern.finditer(text) if part in text else ():
            yield match.span()
