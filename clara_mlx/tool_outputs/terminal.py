"""Takes off what is written for terminals: colours, other codes, and what nobody sees."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.edits import Edit
from clara_mlx.tool_outputs.pieces import PIECE_CHARACTERS, find_all

# Colours come first, because there are many; then the codes that begin with ESC [; then strings,
# such as the address of a link, also one that is cut off with the text; then ESC alone.
# \x1b[1m\x1b[31mFAILED\x1b[0m
CODE = re.compile(
    r"(?:\x1b\[[0-9;:]{0,99}+[mK])++|(?:\x1b(?=\x1b))++"
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

# \r\n
_LINE_END = re.compile(r"\r(?<!\r\r)\r*+(?=\n|\Z)")


def codes(text: str) -> list[Edit]:
    """Edits that remove the codes of a terminal; moves of the cursor become spaces or line ends."""
    if "\x1b" not in text and (text.isascii() or not find_all(_ONE_CHARACTER_CODE, text)):
        return []
    return [
        (*match.span(), _TO_BEGINNING.get(match[0]) or _MOVES.get(match[1], ""))
        for match in find_all(CODE, text)
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
