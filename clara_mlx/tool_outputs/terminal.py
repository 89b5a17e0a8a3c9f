"""Takes off what is written for terminals: colours, carriage returns, backspaces."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.edits import Edit
from clara_mlx.tool_outputs.pieces import PIECE_CHARACTERS, find_all

# Colours come first, because there are many; then the codes that begin with ESC [; then strings,
# such as the address of a link, also one that is cut off with the text; then ESC alone.
# \x1b[1m\x1b[31mFAILED\x1b[0m
_CODE = re.compile(
    r"(?:\x1b\[[0-9;:]{0,99}+[mK])++"
    r"|(?:\x1b\[|\x9b)[0-?]{0,99}+[ -/]{0,9}+([@-~]?)"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c|\Z)"
    r"|(?:\x1b[ -/]{0,9}+[0-OQ-WYZ\\`-~])++|\x1b[ -/]{0,9}+[0-~]?"
)

# The same as single characters beyond ASCII.
# \x9b1m
_ONE_CHARACTER_CODE = re.compile("[\x90\x98\x9b\x9d-\x9f]")

# What is left of a colour where a log lost its first character. In source code it is still there.
# [31mFAILED[0m
_LOST_COLOUR = re.compile(
    r"(?:\^\[|[\ufffd\u241b])\[\d{0,3}+(?:;\d{1,3}+){0,9}+m"
    r"|\[(?<!33\[)(?<!1[bB]\[)(?<!\\e\[)\d{1,3}+(?:;\d{1,3}+){0,9}+m(?!\])"
)
# One of these ends a colour.
_COLOUR_ENDS = ("[0m", "[00m", "[39m", "[22m", "^[[m")

# What a code that moves the cursor leaves, by its last letter: a space between words, or another
# line; or the beginning of the same line.
_MOVES = {**dict.fromkeys("CG", " "), **dict.fromkeys("ABEFHSTdf", "\n")}
_TO_BEGINNING = {"\x1b[G": "\r", "\x1b[0G": "\r", "\x1b[1G": "\r"}

# Characters that show nothing: control characters, and those of Unicode that only format.
# zero\u200bwidth
_INVISIBLE = re.compile(
    "[\x00-\x07\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb]++"
)
_INVISIBLE_ASCII = bytes([*range(0x08), *range(0x0E, 0x20), 0x7F])

# A bold A: each character is overwritten by the next one.
# A\x08A
_OVERSTRUCK = re.compile("(?:[^\x08\r\n]\x08(?=[^\x08\r\n]))++")
_BACKSPACES = re.compile("\x08++")

# \r\n
_LINE_END = re.compile(r"\r(?<!\r\r)\r*+(?=\n|\Z)")

# The first word of a line's state.
#  * Downloading 3 of 8
_FIRST_WORD = re.compile(r"[\W_]{0,12}+([^\W\d_]{0,40}+)")

# What shows that a line's state will be followed by another.
# [==>   ] 12%
_PROGRESS = re.compile(r"[\d%\[#=|\u2500-\u259f\u2800-\u28ff]|\.\.|\u2026")


def codes(text: str) -> list[Edit]:
    """Edits that remove the codes of a terminal; moves of the cursor become spaces or line ends."""
    if "\x1b" not in text and (text.isascii() or not find_all(_ONE_CHARACTER_CODE, text)):
        return []
    return [
        (*match.span(), _TO_BEGINNING.get(match[0]) or _MOVES.get(match[1], ""))
        for match in find_all(_CODE, text)
    ]


def lost_colours(text: str) -> list[Edit]:
    """Edits that remove colours that a log shows instead of wearing them: ``[31mFAILED[0m``."""
    if not any(end in text for end in _COLOUR_ENDS):
        return []
    return [(*match.span(), "") for match in find_all(_LOST_COLOUR, text)]


def invisible(text: str) -> list[Edit]:
    """Edits that remove characters that nobody sees."""
    if text.isascii() and not _has_invisible_ascii(text):
        return []
    return [(*match.span(), "") for match in find_all(_INVISIBLE, text)]


def _has_invisible_ascii(text: str) -> bool:
    pieces = (text[i : i + PIECE_CHARACTERS] for i in range(0, len(text), PIECE_CHARACTERS))
    return any(
        len(piece.encode().translate(None, _INVISIBLE_ASCII)) < len(piece) for piece in pieces
    )


def line_ends(text: str) -> list[Edit]:
    """Edits that remove what Windows writes before a line feed."""
    if "\r" not in text:
        return []
    return [(*match.span(), "") for match in find_all(_LINE_END, text)]


def overstruck(text: str) -> list[Edit]:
    """Edits that remove characters which a backspace and another character overwrite."""
    if "\x08" not in text:
        return []
    return [(*match.span(), "") for match in find_all(_OVERSTRUCK, text)]


def backspaces(text: str) -> list[Edit]:
    """Edits that remove several backspaces with what is overwritten after them."""
    edits: list[Edit] = []
    if "\x08" not in text:
        return edits
    for match in find_all(_BACKSPACES, text):
        start, end = match.span()
        wanted = end - start
        # At the end of a line they only move the cursor.
        while wanted and end < len(text) and text[end] not in "\r\n":
            floor = max(start - wanted, edits[-1][1] if edits else 0)
            line = max(text.rfind("\n", floor, start), text.rfind("\r", floor, start)) + 1
            wanted -= start - max(floor, line)
            start = max(floor, line)
            if not (wanted and edits and start == edits[-1][1] and not line):
                break
            start = edits.pop()[0]
        edits.append((start, end, ""))
    return edits


def carriage_returns(text: str) -> list[Edit]:
    """Edits that leave the last state of each line, and what is no state of what comes after it.

    A progress bar is written over itself; an error that is written over a progress bar, or the
    other way round, gets a line of its own.
    """
    edits: list[Edit] = []
    line_end = -1
    while (found := text.find("\r", line_end + 1)) >= 0:
        line = text.rfind("\n", line_end + 1, found) + 1 or line_end + 1
        line_end = text.find("\n", found)
        line_end = line_end if line_end >= 0 else len(text)
        _leave_last_states(edits, text, line, line_end)
    return edits


def _leave_last_states(edits: list[Edit], text: str, line: int, line_end: int) -> None:
    """Add the edits of one line."""
    dropped = start = end = line  # what is overwritten, and the newest state after it
    newest: tuple[str, str, bool] | None = None
    known: dict[str, tuple[str, str, bool]] = {}  # the states so far, which are often the same
    begin = line
    for state in text[line:line_end].split("\r"):
        stop = begin + len(state)
        if state and not state.isspace():
            if (read := known.get(state)) is None:
                read = known[state] = _read_state(state)
            if newest is None or _is_followed(newest, read):
                start = begin
            else:
                if dropped < start:
                    edits.append((dropped, start, ""))
                edits.append((end, begin, "\n"))
                dropped = start = begin
            end, newest = stop, read
        begin = stop + 1
    if dropped < start:
        edits.append((dropped, start, ""))
    if end < line_end:
        edits.append((end, line_end, ""))


def _read_state(state: str) -> tuple[str, str, bool]:
    """A state of a line: its text, its first word, and whether it shows progress."""
    match = _FIRST_WORD.match(state)
    return state.strip(), match[1] if match else "", _PROGRESS.search(state) is not None


def _is_followed(old: tuple[str, str, bool], new: tuple[str, str, bool]) -> bool:
    """Whether the second of two states is the next one of the same progress bar."""
    return old[1] == new[1] and (not old[1] or old[2] or old[0] == new[0])
