"""Takes off what a terminal overwrites: characters, states of lines, and lines drawn again.

A progress bar is written over itself, and its last state remains. Something else that is written
over it, such as an error, does not make it disappear here: each gets a line of its own.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from clara_mlx.tool_outputs.edits import Edit
from clara_mlx.tool_outputs.pieces import find_all
from clara_mlx.tool_outputs.terminal import CODE

# A bold A: each character is overwritten by the next one.
# A\x08A
_OVERSTRUCK = re.compile("(?:[^\x08\r\n]\x08(?=[^\x08\r\n]))++")
_BACKSPACES = re.compile("\x08++")

# The first word of a line's state.
#  * Downloading 3 of 8
_FIRST_WORD = re.compile(r"[\W_]{0,12}+([^\W\d_]{0,40}+)")

# What shows that a line's state will be followed by another.
# [==>   ] 12%
_PROGRESS = re.compile(r"[\d%\[#=|\u2500-\u259f\u2800-\u28ff]|\.\.|\u2026")

# The end of a line, or a cursor that goes some lines up or down.
# \x1b[3A
_STEP = re.compile(r"\n|\x1b\[(\d{0,3}+)([ABEF])")
# \x1b[3A
_UP = re.compile(r"\x1b\[\d{0,3}+[AF]")

# Lines of a terminal: no cursor goes further up.
_HEIGHT = 200

# The most times that a cursor goes up; no display draws itself again more often.
_MOST_STEPS = 10_000


class _State(NamedTuple):
    """What stood in a line at one time."""

    text: str
    word: str  # its first one
    is_progress: bool

    @classmethod
    def read(cls, written: str) -> _State:
        match = _FIRST_WORD.match(written)
        return cls(
            written.strip(), match[1] if match else "", _PROGRESS.search(written) is not None
        )

    def is_followed_by(self, new: _State) -> bool:
        """Whether another state is the next one of the same progress bar."""
        return self.word == new.word and (
            not self.word or self.is_progress or self.text == new.text
        )


def redrawn_lines(text: str) -> list[Edit]:
    """Edits that remove lines which were drawn again after the cursor had gone up to them.

    This needs the codes of the terminal, and removes those that move the cursor so.
    """
    if "\x1b[" not in text or not 0 < len(find_all(_UP, text)) <= _MOST_STEPS:
        return []
    edits: list[Edit] = []
    rows: dict[int, tuple[int, int, _State]] = {}  # what stands in each line, and where it is
    moves: dict[int, Edit] = {}  # what a move leaves, by its place
    row = begin = 0
    for step in [*find_all(_STEP, text), None]:
        stop = step.start() if step else len(text)
        written = _last_written(text[begin:stop])
        if written:
            state = _State.read(written)
            start, end, old = rows.get(row, (0, 0, None))
            if old and old.is_followed_by(state):
                # It goes with the end of its line, or with the move that followed it.
                _, end, _ = moves.pop(end, (0, end + text.startswith("\n", end), ""))
                edits.append((start, end, ""))
            rows[row] = begin, stop, state
        if step is None:
            break
        if step[2] is None:
            row += 1
            rows.pop(row - _HEIGHT, None)
        else:
            moves[stop] = (*step.span(), "\n" if written else "")
            count = int(step[1] or 1)
            row = max(0, row - count) if step[2] in "AF" else row + count
        begin = step.end()
    return sorted([*edits, *moves.values()])


def _last_written(line: str) -> str:
    """What a terminal shows of a line, if that is written with carriage returns."""
    seen = CODE.sub("", line) if "\x1b" in line else line
    return seen.rstrip("\r ").rpartition("\r")[2] if "\r" in seen else seen.strip() and seen


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
    newest: _State | None = None
    known: dict[str, _State] = {}  # the states so far, which are often the same
    begin = line
    for state in text[line:line_end].split("\r"):
        stop = begin + len(state)
        if state and not state.isspace():
            if (read := known.get(state)) is None:
                read = known[state] = _State.read(state)
            if newest is None or newest.is_followed_by(read):
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
