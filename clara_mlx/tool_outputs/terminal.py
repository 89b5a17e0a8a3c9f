"""Takes off what is written for terminals: colours, carriage returns, backspaces."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.edits import Edit

# Characters that are searched at once, so that other threads get to run.
_PIECE_CHARACTERS = 1 << 17

# ESC[1mESC[31m; ESC[2K; then ESC]8;;https://example.org ESC\ and other strings, also one that is
# cut off with the text; then ESC M, or ESC alone.
_CODE = re.compile(
    r"(?:\x1b\[[0-9;:]{0,99}+[mK])++"
    r"|(?:\x1b\[|\x9b)[0-?]{0,99}+[ -/]{0,9}+([@-~]?)"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c|\Z)"
    r"|\x1b[ -/]{0,9}+[0-~]?"
)

# What a code that moves the cursor leaves, by its last letter: a space between words, the line's
# beginning, or another line.
_MOVES = {"C": " ", "G": "\r", **dict.fromkeys("ABEFHSTdf", "\n")}

# Characters that show nothing: control characters, and those of Unicode that only format.
_INVISIBLE = re.compile(
    "[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb]++"
)

_BACKSPACES = re.compile("\x08++")

# \r\r before a line feed
_LINE_END = re.compile(r"\r(?<!\r\r)\r*+(?=\n|\Z)")

# The first word of a line's state; "Downloading" in "  * Downloading 3 of 8".
_FIRST_WORD = re.compile(r"[\W_]{0,12}+([^\W\d_]*+)")

# What shows that a line's state will be followed by another: "12%", "[==> ]", "...".
_PROGRESS = re.compile(r"[\d%\[#=|\u2500-\u259f\u2800-\u28ff]|\.\.|\u2026")


def codes(text: str) -> Iterator[Edit]:
    """Edits that remove the codes of a terminal; moves of the cursor become spaces or line ends."""
    if "\x1b" not in text and (text.isascii() or not _C1.search(text)):
        return
    for match in _matches(_CODE, text):
        yield *match.span(), _MOVES.get(match[1] or "", "")


_C1 = re.compile("[\x90\x98\x9b\x9d-\x9f]")


def invisible(text: str) -> Iterator[Edit]:
    """Edits that remove characters that nobody sees."""
    for match in _matches(_INVISIBLE, text):
        yield *match.span(), ""


def backspaces(text: str) -> list[Edit]:
    """Edits that remove backspaces with what is overwritten after them."""
    edits: list[Edit] = []
    if "\x08" not in text:
        return edits
    for match in _matches(_BACKSPACES, text):
        start, end = match.span()
        wanted = end - start
        # At the end of a line they only move the cursor.
        while wanted and end < len(text) and text[end] not in "\r\n":
            floor = max(start - wanted, edits[-1][1] if edits else 0)
            line = text.rfind("\n", floor, start) + 1
            wanted -= start - max(floor, line)
            start = max(floor, line)
            if not (wanted and edits and start == edits[-1][1] and not line):
                break
            start = edits.pop()[0]
        edits.append((start, end, ""))
    return edits


def line_ends(text: str) -> Iterator[Edit]:
    """Edits that remove what Windows writes before a line feed."""
    for match in _matches(_LINE_END, text):
        yield *match.span(), ""


def carriage_returns(text: str) -> Iterator[Edit]:
    """Edits that leave the last state of each line, and what is no state of what comes after it.

    A progress bar is written over itself; an error that is written over a progress bar, or the
    other way round, gets a line of its own.
    """
    line_end = -1
    while (found := text.find("\r", line_end + 1)) >= 0:
        line = text.rfind("\n", line_end + 1, found) + 1 or line_end + 1
        line_end = text.find("\n", found)
        line_end = line_end if line_end >= 0 else len(text)
        yield from _last_states(text, line, line_end)


def _last_states(text: str, line: int, line_end: int) -> Iterator[Edit]:
    """The same for one line."""
    dropped = start = end = line  # what is overwritten, and the newest state after it
    known: str | None = None  # that state's first word
    begin = line
    while begin <= line_end:
        found = text.find("\r", begin, line_end)
        stop = found if found >= 0 else line_end
        state = text[begin:stop]
        if state and not state.isspace():
            match = _FIRST_WORD.match(state)
            word = match[1] if match else ""
            if known is None or (word == known and _is_progress(word, text[start:end], state)):
                start = begin
            else:
                if dropped < start:
                    yield dropped, start, ""
                yield end, begin, "\n"
                dropped = start = begin
            end, known = stop, word
        begin = stop + 1
    if dropped < start:
        yield dropped, start, ""
    if end < line_end:
        yield end, line_end, ""


def _is_progress(word: str, old: str, new: str) -> bool:
    """Whether two states of a line that begin with the same word are of one progress bar."""
    return not word or _PROGRESS.search(old) is not None or old.strip() == new.strip()


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Every match, searched piece by piece; a match never looks at what is before it."""
    start = 0
    while start < len(text):
        stop = start + _PIECE_CHARACTERS
        last = start
        for match in pattern.finditer(text, start, stop):
            last = match.end()
            if last == stop < len(text):  # it may go on
                whole = pattern.match(text, match.start())
                if whole is None:
                    continue
                match, last = whole, whole.end()
            yield match
        start = max(stop, last)
