"""The text of a fold: one message that stands for many, with a line for each text and step.

Every line says whose words it has, and only lines that this program wrote are taken over from an
earlier fold. So nothing that a tool, a file or a model said becomes a line of somebody else's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clara_mlx.context.commands import middle, short_command, subject_of
from clara_mlx.context.messages import Piece, calls_by_result, content_text, pieces
from clara_mlx.context.wording import EXPLANATION
from clara_mlx.tool_outputs.quoting import (
    MARKER,
    even_line_ends,
    indent,
    one_line,
    plain_name,
    quote_markers,
    replace_surrogates,
    role_label,
    spell_out_tags,
)

#: How a block that stands for many messages names them.
FOLDED = "earlier messages"

# How the line of a block with a handle begins.
_BLOCK = f"{MARKER}m-"

# Characters of a text in its short form.
SHORT = 160

# Characters of it in its fuller form.
FULLER = 640

# Characters of a call in its short form, if it has one argument.
_CALL = 120

# Characters of a result in its short form.
_RESULT = 100

# Characters of what a step was about, where it is only named with its handles.
_SUBJECT = 48

# Users' words come first, but leave this share of the room to the rest.
_BESIDE_USERS = 0.4

# Steps that are only named with their handles leave this share of what is left to fuller forms.
_BESIDE_NAMED = 0.2

# Short forms leave this share of what is left then to the fullest ones.
_BESIDE_SHORT = 0.3


@dataclass(frozen=True)
class Told:
    """A text as a fold tells of it.

    Attributes:
        text: The text itself.
        handle: The handle of its original, if it is long.
        block: The text of its block, if it is long.
    """

    text: str
    handle: str | None = None
    block: str | None = None


#: Finds how a fold tells of a text; see `Freezer.told`.
Tell = Callable[[Piece], Told]


@dataclass(frozen=True)
class Entry:
    """What a fold can say of a text or a step.

    Attributes:
        short: A line, or two of which the second is indented.
        full: A fuller form of it, whose further lines are indented.
        about: How the line begins that only names it, together with others of which it is the
            same; None if it can't be shown so.
        handles: The handles that such a line has of it.
        is_users: Whether it has a user's words.
        count: How often it was said.
    """

    short: str
    full: str
    about: str | None = None
    handles: tuple[str, ...] = ()
    is_users: bool = False
    count: int = 1


@dataclass(frozen=True)
class ToldUnit:
    """What folds can say of a unit, and the handles of its texts."""

    entries: Sequence[Entry]
    handles: Sequence[str]


class ToldUnits(dict[tuple[bytes, int], ToldUnit]):
    """What folds can say of units, by the chain that ends with one and the number of its messages.

    Args:
        most: The number of units that are kept.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: tuple[bytes, int], told: ToldUnit) -> None:
        if len(self) >= self._most:
            self.clear()
        super().__setitem__(key, told)


def fold_entries(
    messages: Sequence[Mapping[str, Any]],
    tell: Tell,
    earlier: Collection[int] = (),
    step_handles: Mapping[int, str] | None = None,
) -> list[Entry]:
    """For each text and step of messages, what a fold can say of it.

    Args:
        messages: The messages.
        tell: Says how to tell of a text. Only what it takes for a block is one, whatever it looks
            like; other texts stand under their own role.
        earlier: The indices of the messages that are earlier folds.
        step_handles: The handles of the short texts of steps, by the index of a step's first
            message.
    """
    calls = calls_by_result(messages)
    results: dict[str, list[int]] = {}
    for index, message in enumerate(messages):
        if message.get("role") == "tool":
            results.setdefault(str(message.get("tool_call_id")), []).append(index)
    used: set[int] = set()
    entries: list[Entry] = []
    for index, message in enumerate(messages):
        if index in used:
            continue
        if index in earlier:
            entries += kept_entries(content_text(message))
            continue
        own = (step_handles or {}).get(index)
        found = pieces(message, calls.get(index))
        told = [(piece, tell(piece)) for piece in found if not piece.part.startswith("arguments")]
        entries += _text_entries(str(message.get("role")), told)
        arguments = {one.part: one for one in found if one.part.startswith("arguments")}
        for number, call in enumerate(message.get("tool_calls") or ()):
            piece = arguments.get(f"arguments.{number}")
            waiting = [i for i in results.get(str(call.get("id")), ()) if i > index][:1]
            used.update(waiting)
            gave = [
                tell(one)
                for i in waiting
                for one in pieces(messages[i], calls.get(i))
                if not one.part.startswith("arguments")
            ]
            name = str((call.get("function") or {}).get("name") or "tool")
            entries.append(_step_entry(name, tell(piece) if piece else Told(""), gave, own))
    return entries


def _step_entry(tool: str, given: Told, gave: Sequence[Told], own: str | None) -> Entry:
    """What a fold can say of a call and its result."""
    name = plain_name(tool)
    called = f"called {name}{_after(given.handle)}: "
    marker = f"{MARKER}{given.handle}:" if given.handle else ""
    short = called + short_command(given.text, marker, _CALL)
    full = called + short_command(given.text, marker)
    handles = [given.handle] if given.handle else []
    for one in gave:
        if one.block is None:
            short += f"\n  gave: {middle(one.text, _RESULT)}" if one.text.strip() else ""
            full += f"\n  gave: {one_line(one.text, FULLER)}" if one.text.strip() else ""
            continue
        handles += [one.handle] if one.handle else []
        lines = [line for line in _block_lines(one.block) if not line.startswith("command: ")]
        outcomes = [line for line in lines if line.startswith("outcome: ")]
        first = outcomes[-1].removeprefix("outcome: ") if outcomes else _size_in(one.block)
        short += f"\n  gave{_after(one.handle)}: {one_line(first, _RESULT)}"
        full += f"\n  gave{_after(one.handle)}: {_size_in(one.block)}"
        full += "".join(f"\n  {quote_markers(line)}" for line in lines)
    about = f"called {name}: {subject_of(given.text, _SUBJECT)}"
    return Entry(short, full, about, tuple(handles or ([own] if own else ())))


def _text_entries(role: str, told: Iterable[tuple[Piece, Told]]) -> list[Entry]:
    """The entries of a message's texts; texts in a row that are no blocks share one."""
    entries: list[Entry] = []
    foreign = ""
    label = role_label(role)
    is_users = role == "user"
    for _, one in told:
        if one.handle is None and one.block is None:
            foreign += one.text
            continue
        entries += _foreign_entry(label, foreign, is_users)
        foreign = ""
        if one.handle is None:  # what the memory's tools gave
            block = MARKER + quote_markers(str(one.block)[len(MARKER) :])
            entries.append(_block_entry(block))
            continue
        begins = f"{label} {one.handle}: "
        text = one.text.strip()
        short, full = begins + middle(text, SHORT), begins + middle(text, FULLER)
        entries.append(Entry(short, full, label, (one.handle,), is_users))
    return entries + _foreign_entry(label, foreign, is_users)


def _foreign_entry(label: str, text: str, is_users: bool) -> list[Entry]:
    text = text.strip()
    if not text:
        return []
    short, full = f"{label}: {middle(text, SHORT)}", f"{label}: {middle(text, FULLER)}"
    return [Entry(short, full, is_users=is_users)]


def _after(handle: str | None) -> str:
    return f" {handle}" if handle else ""


def _block_lines(block: str) -> list[str]:
    """The lines of a block after its heading, as we wrote them."""
    return even_line_ends(without_explanation(block)).split("\n")[1:]


def _size_in(block: str) -> str:
    """How long a block's heading says that its text is."""
    return block.partition("\n")[0].rpartition(", kept whole")[0].rpartition(", ")[2] or "a text"


def kept_entries(fold: str) -> list[Entry]:
    """The entries of a fold that this program made, from its text."""
    # A fuller form has further lines, indented; they stay with their first.
    lines = re.split(r"\n(?!  )", without_explanation(fold))[1:]
    return [_block_entry(line.replace("\n  ", "\n")) for line in lines]


def _block_entry(text: str) -> Entry:
    text = even_line_ends(text)
    is_users = text.startswith(("user: ", "user m-"))
    return Entry(_first_lines(text), indent(text), is_users=is_users)


def without_explanation(text: str) -> str:
    """A block's text without what explains blocks."""
    return text.strip().removesuffix(EXPLANATION)


def describe_fold(entries: Sequence[Entry], handle: str, messages: int, most: int) -> str:
    """The text that stands for many messages.

    Users' words come first. All other steps are named with their handles as long as there is room,
    several of which in one line; then the newest are told in more words, and the newest of those
    in their fullest form.

    Args:
        entries: What `fold_entries` gave.
        handle: The handle of the transcript.
        messages: The number of messages.
        most: Characters that the text may have, about.
    """
    entries = _together(entries)
    choice = _Choice(entries, most)
    users = [i for i in reversed(range(len(entries))) if entries[i].is_users]
    others = [i for i in reversed(range(len(entries))) if not entries[i].is_users]
    choice.tell(users, most * _BESIDE_USERS, fully=False)
    choice.name(others, choice.room * _BESIDE_NAMED)
    choice.tell(others, choice.room * _BESIDE_SHORT, fully=False)
    choice.tell([*users, *others], 0, fully=True)
    choice.tell(others, 0, fully=False)
    left = choice.left
    only = f"; {left} of {len(entries)} lines only there" if left else ""
    heading = f"{MARKER}{handle}: {messages} {FOLDED}, kept whole{only}]"
    return spell_out_tags(replace_surrogates("\n".join([heading, *choice.lines()])))


class _Choice:
    """Which entries a fold shows, and in which form."""

    def __init__(self, entries: Sequence[Entry], room: float) -> None:
        self._entries = entries
        self.room = room
        self._told: dict[int, str] = {}
        self._named: dict[str, list[int]] = {}

    def name(self, indices: Iterable[int], spare: float) -> None:
        """Only name these entries, as long as ``spare`` characters stay free."""
        for index in indices:
            entry = self._entries[index]
            if entry.about is None or not entry.handles:
                continue
            needed = self._size_named(entry)
            needed += 0 if entry.about in self._named else len(entry.about) + 3
            if self.room - needed >= spare:
                self.room -= needed
                self._named.setdefault(entry.about, []).append(index)

    def tell(self, indices: Iterable[int], spare: float, *, fully: bool) -> None:
        """Tell of these entries in a longer form, as long as ``spare`` characters stay free."""
        for index in indices:
            entry = self._entries[index]
            text = entry.full if fully else entry.short
            if index in self._told:
                needed = len(text) - len(self._told[index])
                if needed <= 0:
                    continue
            else:
                needed = len(text) + 1
                if index in self._named.get(entry.about or "", ()):
                    needed -= self._size_named(entry)
            if self.room - needed >= spare:
                self.room -= needed
                self._told[index] = text
                if index in self._named.get(entry.about or "", ()):
                    self._named[entry.about or ""].remove(index)

    @property
    def left(self) -> int:
        """The number of entries that are not shown."""
        named = sum(map(len, self._named.values()))
        return len(self._entries) - len(self._told) - named

    def lines(self) -> list[str]:
        """The lines: first those that only name steps, then all others in their order."""
        lines = []
        for about, indices in sorted(self._named.items(), key=lambda one: min(one[1], default=0)):
            found = [handle for index in indices for handle in self._entries[index].handles]
            if found:
                lines.append(f"{about}: {', '.join(dict.fromkeys(reversed(found)))}")
        for index in sorted(self._told):
            count = self._entries[index].count
            first, feed, rest = self._told[index].partition("\n")
            times = f" ({count} times)" if count > 1 else ""
            lines.append(first + times + feed + rest)
        return lines

    @staticmethod
    def _size_named(entry: Entry) -> int:
        return sum(len(handle) + 2 for handle in entry.handles)


def _together(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, of equal ones the last, with their number."""
    counts = Counter((entry.short, entry.full, entry.handles) for entry in entries)
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    found: list[Entry] = []
    for entry in reversed(entries):
        key = (entry.short, entry.full, entry.handles)
        if key not in seen:
            seen.add(key)
            found.append(replace(entry, count=counts[key]) if counts[key] > 1 else entry)
    return found[::-1]


def _first_lines(text: str) -> str:
    """The first line of an entry, and with an old block's also its command and first outcome."""
    lines = text.split("\n", 3)
    if not text.startswith(_BLOCK):
        return indent("\n".join(lines[:2]))
    rest = [line.partition(": ")[2] for line in lines[1:3] if line[:8] in ("command:", "outcome:")]
    return " | ".join([lines[0], *rest])


def transcript(messages: Sequence[Mapping[str, Any]], tell: Tell) -> str:
    """Messages as text in lines, for a fold's original: it is read in pages.

    Long texts are as their blocks say; each has a handle of its own.
    """
    calls = calls_by_result(messages)
    lines: list[str] = []
    for index, message in enumerate(messages):
        for piece in pieces(message, calls.get(index)):
            one = tell(piece)
            text = one.text if one.block is None else without_explanation(one.block)
            said = indent(text.strip())
            if piece.part.startswith("arguments"):
                said = short_command(one.text, most=FULLER) if one.handle else said
                name = plain_name(piece.tool or "tool")
                lines.append(f"called {name}{_after(one.handle)}: {said}")
            else:
                label = "  gave" if piece.role == "tool" else role_label(piece.role)
                lines.append(f"{label}: {said}")
    return "\n".join(lines)
