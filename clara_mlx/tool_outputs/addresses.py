"""The identifiers that say where in a network something is: URLs."""

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
        if scheme is None or rest is None:
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
