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


def test_names(text: str) -> Iterator[Span]:
    """Names of tests, as their runners print them and take them."""
    for match in _PYTEST_NODE.finditer(text) if ".py::" in text else ():
        if match[1].endswith(".py"):  # not a name of Rust or C++
            end = match.end()
            yield (
                match.start(),
                _end_of_parameters(text, end) if text[end : end + 1] == "[" else end,
            )
    for match in _TEST_LINE.finditer(text):
        group = match.lastgroup or ""
        if group != "unittest":
            yield match.span(group)
        elif match["dotted"].endswith(f".{match['name']}"):
            yield match.span("dotted")
        else:
            yield match.start("name"), match.end("unittest")


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
