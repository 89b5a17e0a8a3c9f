r"""Unfolds texts that stand in JSON, so that their lines are lines.

Many agents and tools send an output as ``{"returncode": 0, "output": "first line\nsecond line"}``.
Plain data stays as it is: only a string with line ends in it, or a long one that is JSON itself or
quotes something, is unfolded, and only where the rest of its line is JSON, or a dictionary as
Python prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.edits import Edit
from clara_mlx.tool_outputs.pieces import PIECE_CHARACTERS, find_all

# Characters of a string without line ends that is unfolded all the same.
_LONG = 200

# Characters that a text among other fields of a document has at least; shorter ones are data.
_FIELD = 100

# A line of JSON, perhaps with words before it; or a field in a document of many lines.
# INFO response: [{"text": "
_BEGIN = re.compile(
    r"(?:[^\"'\\\n(={\[:]{1,80}+: ?){0,3}+(?P<bracket>[ \t]*+[\[{])"
    r'|(?P<field>[ \t]++"[^"\\\n]{1,80}+"[ \t]*+:)|(?P<string>")'
)
# , true, [
_BETWEEN = re.compile(r"[ \t\r\w\[\]{},:.+-]*+")
# first line
_INSIDE = re.compile(r'(?:[^"\\\n]{1,9999}+|\\[^\n]){1,500}+')
# the "first" line
_INSIDE_OF_PYTHON = re.compile(r"(?:[^'\\\n]{1,9999}+|\\[^\n]){1,500}+")
_IS_KEY = re.compile(r"[ \t]*+:")

# : "first line",
_VALUE = re.compile(r':[ \t]*+"((?:[^"\\\n]++|\\[^\n])*+)"(?=[ \t]*+[,}])')

# \"
_ESCAPE = re.compile(
    r'\\(?:([nrtbf"\'\\/])|u(?:([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})'
    r"|([0-9a-fA-F]{4}))|x([0-9a-fA-F]{2}))"
)
_ESCAPED = {"\\n": "\n", "\\r": "\r", "\\t": "\t", "\\b": "\b", "\\f": "\f"}
_ESCAPED |= {f"\\{same}": same for same in "\"'\\/"}

# A string that is JSON itself.
# [{\"text\"
_NESTED = re.compile(r'[ \t]*+(?:[\[{][^"\\\n]{0,40}+)?\\?"')


def json_strings(text: str) -> list[Edit]:
    """Edits that unfold the texts in lines that are JSON; each gets lines of its own."""
    edits: list[Edit] = []
    cut = False  # a string of an earlier line had no end
    line_end = -1
    while (found := text.find("\\", line_end + 1)) >= 0:
        line = text.rfind("\n", line_end + 1, found) + 1 or line_end + 1
        line_end = text.find("\n", found)
        line_end = line_end if line_end >= 0 else len(text)
        begin = _BEGIN.match(text, line, line_end)
        kind = begin.lastgroup if begin else None
        if kind == "string" and line == 0:
            edits += _whole_line(text, line_end)
        elif begin and kind in ("bracket", "field"):
            at_least = _FIELD if kind == "field" else 0
            for start, end in _values(text, begin.end(), line_end):
                if end - start >= at_least and (
                    unfolded := _unfold(text, start, end, line, line_end)
                ):
                    edits += unfolded
                    cut = end >= line_end - 1 and text[end : end + 1] != text[start - 1]
        elif cut and text.count("\\n", line, line_end) > 1:
            # What is left of a string, after a mark that says how much is left out.
            end = _end_of_string(text, line, line_end, '"')
            edits += _decode(text, line, end)
            cut = end >= line_end - 1
    return edits


def json_records(text: str) -> list[Edit]:
    """Edits that leave the text of each record which holds a line of an output.

    So do runners of tests and of containers write: ``{"Action": "output", "Output": "ok\\n"}``, a
    line each.
    """
    edits: list[Edit] = []
    line_end = -1
    while (found := text.find('\\n"', line_end + 1)) >= 0:
        line = text.rfind("\n", line_end + 1, found) + 1 or line_end + 1
        line_end = text.find("\n", found)
        line_end = line_end if line_end >= 0 else len(text)
        if line_end - line > PIECE_CHARACTERS or not (
            text.startswith('{"', line) and text.endswith("}", line, line_end)
        ):
            continue
        ends = [
            one.span(1)
            for one in _VALUE.finditer(text, line, line_end)
            if text.endswith("\\n", *one.span(1))
        ]
        if len(ends) == 1:
            ((start, end),) = ends
            escapes = _decode(text, start, end)
            if escapes[-1][0] == end - 2:  # not a backslash and an n
                edits += [(line, start, ""), *escapes[:-1], (end - 2, line_end, "")]
    return edits


def _values(text: str, start: int, line_end: int) -> Iterator[tuple[int, int]]:
    """The insides of the strings of a line of JSON that are not names of fields."""
    quotes = ""
    while start < line_end:
        between = _BETWEEN.match(text, start, line_end)
        quote = between.end() if between else start
        # Python uses both marks, JSON one.
        quotes = quotes or ("\"'" if text.startswith("'", quote) else '"')
        if quote >= line_end or text[quote] not in quotes:
            return
        end = _end_of_string(text, quote + 1, line_end, text[quote])
        start = end + 1
        if not _IS_KEY.match(text, start, line_end):
            yield quote + 1, end


def _end_of_string(text: str, start: int, line_end: int, mark: str) -> int:
    """Where the inside of a string ends: at its quotation mark, or where the line is cut off."""
    pattern = _INSIDE if mark == '"' else _INSIDE_OF_PYTHON
    while inside := pattern.match(text, start, line_end):
        start = inside.end()
    return start


def _whole_line(text: str, line_end: int) -> list[Edit]:
    """The edits of a text that is one JSON string."""
    end = _end_of_string(text, 1, line_end, '"')
    if text[end + 1 : line_end].strip() or "\\n" not in text[1:end]:
        return []
    return _unfold(text, 1, end, 0, line_end)


def _unfold(text: str, start: int, end: int, line: int, line_end: int) -> list[Edit]:
    """The edits of one string, or none if it is data."""
    if text.find("\\", start, end) < 0:
        return []
    escapes = find_all(_ESCAPE, text[start:end])
    length = end - start
    if not (
        (length >= _LONG and escapes)
        or any(match[1] == "n" and match.end() < length for match in escapes)
        or (_NESTED.match(text, start, end) and text.find(r"\\n", start, end) >= 0)
    ):
        return []
    # The quotes become line ends, if there is something before and after them.
    edits = [(start - 1, start, "\n" if text[line : start - 1].strip() else "")]
    edits += _decode(text, start, end, escapes)
    if end < line_end and text[end] == text[start - 1]:
        ended = edits[-1][1] == end and edits[-1][2] == "\n"
        edits.append((end, end + 1, "" if ended or end + 1 == line_end else "\n"))
    return edits


def _decode(
    text: str, start: int, end: int, escapes: list[re.Match[str]] | None = None
) -> list[Edit]:
    """The edits that decode the inside of a string; ``escapes`` are those of it, if known."""
    found = find_all(_ESCAPE, text[start:end]) if escapes is None else escapes
    return [
        (start + one.start(), start + one.end(), _ESCAPED.get(one[0]) or _character(one))
        for one in found
    ]


def _character(escape: re.Match[str]) -> str:
    """The character that an escape stands for."""
    high, low, code, byte = escape.group(2, 3, 4, 5)
    if high:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
    return chr(int(code or byte, 16))
