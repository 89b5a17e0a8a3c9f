"""Texts of strangers for a page: what can't be seen, or moves other text, becomes a mark.

The template escapes what is left, as it does everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from markupsafe import Markup, escape

# Characters that are not seen, or change how others are: controls, directions, fillers, tags. The
# joiners of emoji and of Persian are left as they are.
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b"
    "\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff"
)

# \x1b[31m, or characters in a row that are not seen
_MARKED = re.compile(rf"\x1b\[[0-?]{{0,32}}+[@-~]|[{_HIDDEN}]")

# What controls are called, in their order; few fonts have the pictures of them.
_CONTROLS = (  # noqa: SIM905  # a list would be as long as the file
    "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI "
    "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
).split()

# Marks in a row that are written out; of more, the number is said.
_WRITTEN = 8


def visible(text: object) -> Markup:
    """A text as HTML in which nothing acts and nothing hides."""
    return Markup("").join(_pieces(str(text)))


def plain(text: object) -> str:
    """The same for where only text can be, such as the choices of a form."""
    return _MARKED.sub(lambda found: f"[{_label(found[0])}]", str(text))


def _pieces(text: str) -> Iterator[Markup]:
    end = 0
    marks: list[str] = []
    for found in _MARKED.finditer(text):
        if found.start() > end:
            yield _written(tuple(marks))
            marks = []
            yield escape(text[end : found.start()])
        marks.append(found[0])
        end = found.end()
    yield _written(tuple(marks))
    yield escape(text[end:])


@lru_cache(maxsize=1024)  # the same few again and again, such as the end of each line
def _written(marks: tuple[str, ...]) -> Markup:
    """Marks that stand in a row."""
    if not marks:
        return Markup("")
    labels = " ".join(map(_label, islice(marks, _WRITTEN)))
    names = ", ".join(map(_name, islice(marks, _WRITTEN)))
    more = f" and {len(marks) - _WRITTEN:,} more" if len(marks) > _WRITTEN else ""
    return Markup('<span class="mark" title="{}{}">{}{}</span>').format(names, more, labels, more)


def _label(mark: str) -> str:
    if len(mark) > 1:
        return f"ESC{mark[1:]}"
    return _CONTROLS[ord(mark)] if mark < " " else f"U+{ord(mark):04X}"


def _name(mark: str) -> str:
    if len(mark) > 1:
        return "a code for terminals"
    code = f"U+{ord(mark):04X}"
    return f"{unicodedata.name(mark, 'a control character').lower()} ({code})"
