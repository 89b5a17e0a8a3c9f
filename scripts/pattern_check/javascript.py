"""Writes a Python pattern as one of JavaScript, for recheck, whose automata know no lookarounds.

Two forms. The **exact** one takes as long as Python's: what JavaScript lacks (possessive repeats,
atomic groups) is written with lookaheads and back references. The **failing** one can do everything
that the pattern can, and more, but ends in a character that no text has: it has no possessive
repeats and no lookarounds, and every attempt fails. If that one is linear, then so is the pattern,
wherever its attempts start, fail or look further than they match.

Each set of characters is written out over a small alphabet (`alphabet`): what Python's ``\\w``
makes of a letter outside ASCII can then not be lost in JavaScript's.
"""

from __future__ import annotations

import re
import re._constants as op  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterable
from typing import Any

# A repeat that may go on for longer counts as one without an end: 4,096 times as slow is too slow.
LONG_REPEAT = 32

# The failing form asks for no more repeats than these: it may match more, and it stays small.
FEW_REPEATS = 4

# The most ways through a pattern that are looked at one by one.
MOST_WAYS = 64

# In no text; what is beyond the alphabet.
NEVER = "\ue000"

# The last character that is one to JavaScript.
_BASIC_PLANE = 0xFFFF

# Characters of private use from here on stand for those beyond it.
_FIRST_STAND_IN = ord(NEVER) + 1

# Letter, digit that is no decimal, decimal, space, mark: one for each way in which Python's classes
# can tell characters outside ASCII apart, and a lone surrogate.
_BEYOND_ASCII = "éÉ²٣\u00a0\u2022\ud800"

_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)
_ONE_CHARACTER = (op.LITERAL, op.NOT_LITERAL, op.IN, op.ANY)


class Unsupported(Exception):
    """A part of Python's syntax that no pattern of the source has had."""


def alphabet(text: str, flags: int) -> str:
    """Characters of which every other behaves like one: ASCII, some beyond, and the pattern's."""
    named = {character for character in text if character > "\x7f"}
    return "".join(sorted({*map(chr, range(128)), *_BEYOND_ASCII, *named}))


def exact_form(text: str, flags: int, use: str) -> str:
    """The source of a JavaScript pattern without flags that does what the Python pattern does.

    Args:
        text: The Python pattern.
        flags: Its flags.
        use: How it is used: match, fullmatch, search or scan.
    """
    tree = list(parser.parse(text, flags))
    return _Writer(text, flags, failing=False).write(tree, use)


def failing_forms(text: str, flags: int, use: str) -> list[str]:
    """The failing form, as one pattern for each way through the alternatives outside of repeats.

    Where every attempt fails, all of them are tried, and their times add up.
    """
    ways = _ways(list(parser.parse(text, flags)))
    return [_Writer(text, flags, failing=True).write(way, use) for way in ways]


def matched(item: Any, flags: int, characters: str) -> frozenset[str]:
    """Those of some characters that an item matches which is one character long."""
    kind, value = item
    if kind is op.ANY:
        return frozenset(c for c in characters if c != "\n" or flags & re.DOTALL)
    if kind is op.LITERAL or kind is op.NOT_LITERAL:
        found = frozenset(c for c in characters if _is_in([(op.LITERAL, value)], c, flags))
        return found if kind is op.LITERAL else frozenset(characters) - found
    negated = value[:1] == [(op.NEGATE, None)]
    return frozenset(c for c in characters if _is_in(value, c, flags) != negated)


def _is_in(items: list[Any], character: str, flags: int) -> bool:
    forms = {character}
    if flags & re.IGNORECASE:
        forms |= {form for form in (character.lower(), character.upper()) if len(form) == 1}
    for kind, value in items:
        if kind is op.LITERAL and any(ord(form) == value for form in forms):
            return True
        if kind is op.RANGE and any(value[0] <= ord(form) <= value[1] for form in forms):
            return True
        if kind is op.CATEGORY:
            plain, negated = _CATEGORIES[value]
            found = plain(character) and (not flags & re.ASCII or character < "\x80")
            if found != negated:
                return True
    return False


_CATEGORIES = {
    op.CATEGORY_DIGIT: (str.isdecimal, False),
    op.CATEGORY_NOT_DIGIT: (str.isdecimal, True),
    op.CATEGORY_SPACE: (str.isspace, False),
    op.CATEGORY_NOT_SPACE: (str.isspace, True),
    op.CATEGORY_WORD: (lambda c: c.isalnum() or c == "_", False),
    op.CATEGORY_NOT_WORD: (lambda c: c.isalnum() or c == "_", True),
}


def _ways(items: list[Any]) -> list[list[Any]]:
    """A sequence as several without alternatives outside of repeats; where these would be too many,
    some alternatives stay.
    """
    ways: list[list[Any]] = [[]]
    for kind, value in items:
        options: list[list[Any]] = [[(kind, value)]]
        if kind is op.BRANCH:
            options = [way for one in value[1] for way in _ways(list(one))]
        elif kind is op.SUBPATTERN:
            group, added, removed, inside = value
            options = [[(kind, (group, added, removed, way))] for way in _ways(list(inside))]
        elif kind is op.ATOMIC_GROUP:
            options = [[(kind, way)] for way in _ways(list(value))]
        if len(ways) * len(options) > MOST_WAYS:
            options = [[(kind, value)]]
        ways = [[*way, *option] for way in ways for option in options]
    return ways


class _Writer:
    def __init__(self, text: str, flags: int, failing: bool) -> None:
        self._text = text
        self._flags = flags
        self._failing = failing
        self._alphabet = alphabet(text, flags)
        self._codes = _codes(self._alphabet)
        self._word = frozenset(c for c in self._alphabet if c.isalnum() or c == "_")
        self._atomic = 0

    def write(self, tree: list[Any], use: str) -> str:
        body = self._sequence(tree, self._flags, begins=True, ends=True)
        start = "^" if use in ("match", "fullmatch") else ""
        if self._failing:
            return f"{start}(?:{body}){NEVER}"
        return f"{start}(?:{body}){'$' if use == 'fullmatch' else ''}"

    def _sequence(self, items: list[Any], flags: int, begins: bool, ends: bool) -> str:
        """Items one after the other.

        At the beginning and the end of the whole pattern, an assertion about the character beyond
        is written as that character, which changes what matches by one, and the time not at all.
        """
        written: list[str] = []
        for index, item in enumerate(items):
            before, after = items[:index], items[index + 1 :]
            first = begins and not written
            last = ends and all(self._is_assertion(one) for one in after)
            written.append(self._item(item, flags, before, after, first, last))
            if not written[-1]:
                written.pop()
        return "".join(written)

    @staticmethod
    def _is_assertion(item: Any) -> bool:
        return item[0] in (op.AT, op.ASSERT, op.ASSERT_NOT)

    def _item(
        self, item: Any, flags: int, before: list[Any], after: list[Any], first: bool, last: bool
    ) -> str:
        kind, value = item
        if kind in _ONE_CHARACTER:
            return self._set(matched(item, flags, self._alphabet))
        if kind is op.AT:
            return self._place(value, flags, before, after, first, last)
        if kind in (op.ASSERT, op.ASSERT_NOT):
            return self._lookaround(item, flags, first, last)
        if kind is op.BRANCH:
            parts = (self._sequence(list(one), flags, first, last) for one in value[1])
            return f"(?:{'|'.join(parts)})"
        if kind is op.SUBPATTERN:
            group, added, removed, inside = value
            flags = (flags | added) & ~removed
            body = self._sequence(list(inside), flags, first, last)
            return f"(?<g{group}>{body})" if self._is_referred(group) else f"(?:{body})"
        if kind is op.GROUPREF:
            return f"{self._set(frozenset(self._alphabet))}*" if self._failing else rf"\k<g{value}>"
        if kind is op.ATOMIC_GROUP:
            return self._atom(self._sequence(list(value), flags, first, False))
        if kind in _REPEATS:
            return self._repeat(kind, value, flags)
        raise Unsupported(f"{kind} in {self._text!r}")

    def _is_referred(self, group: int | None) -> bool:
        return group is not None and not self._failing and "(?P=" in self._text

    def _repeat(self, kind: Any, value: Any, flags: int) -> str:
        least, most, inside = value
        body = self._sequence(list(inside), flags, False, False)
        least = min(least, FEW_REPEATS if self._failing else LONG_REPEAT)
        counts = f"{{{least},{'' if most is op.MAXREPEAT or most > LONG_REPEAT else most}}}"
        counts = {"{0,}": "*", "{1,}": "+", "{0,1}": "?"}.get(counts, counts)
        written = f"(?:{body}){counts}"
        if kind is op.MIN_REPEAT and not self._failing:
            return written + "?"
        return self._atom(written) if kind is op.POSSESSIVE_REPEAT else written

    def _atom(self, body: str) -> str:
        if self._failing:
            return f"(?:{body})"
        self._atomic += 1
        return rf"(?:(?=(?<a{self._atomic}>{body}))\k<a{self._atomic}>)"

    def _lookaround(self, item: Any, flags: int, first: bool, last: bool) -> str:
        kind, (direction, inside) = item
        one = len(inside) == 1 and inside[0][0] in _ONE_CHARACTER
        if one and (first if direction < 0 else last):
            characters = matched(inside[0], flags, self._alphabet)
            if kind is op.ASSERT:
                return self._set(characters)
            return self._edge(direction, frozenset(self._alphabet) - characters)
        body = self._sequence(list(inside), flags, False, False)
        if self._failing:
            # Backwards it has a fixed width. Forwards its steps count, although nothing is taken.
            return "" if direction < 0 else f"(?:(?:{body}){NEVER}|)"
        return f"(?{'<' if direction < 0 else ''}{'=' if kind is op.ASSERT else '!'}{body})"

    def _edge(self, direction: int, characters: frozenset[str]) -> str:
        """The begin (-1) or the end of the text, or one of some characters."""
        if direction < 0:
            return f"(?:^|{self._set(characters)})"
        return (
            f"(?:{self._set(characters)})?" if self._failing else f"(?:$|{self._set(characters)})"
        )

    def _place(
        self, place: Any, flags: int, before: list[Any], after: list[Any], first: bool, last: bool
    ) -> str:
        lines = bool(flags & re.MULTILINE)
        newline = frozenset("\n")
        if place in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            if place is op.AT_BEGINNING_STRING or not lines:
                return "^" if first or not self._failing else ""
            if first:
                return self._edge(-1, newline)
            return "" if self._failing else r"(?<=^|\n)"
        if place in (op.AT_END, op.AT_END_STRING):
            if self._failing:
                return ""
            if place is op.AT_END_STRING or not lines:
                return "$"
            return self._edge(1, newline) if last else r"(?=$|\n)"
        inside = self._word if place is op.AT_BOUNDARY else frozenset[str]()
        if place is op.AT_BOUNDARY and first:
            following = self._first(after, flags)
            if following and following <= inside:
                return self._edge(-1, frozenset(self._alphabet) - inside)
            if following and not following & inside:
                return self._set(inside)
        if place is op.AT_BOUNDARY and last:
            preceding = self._first(before[::-1], flags, backwards=True)
            if preceding and preceding <= inside:
                return self._edge(1, frozenset(self._alphabet) - inside)
            if preceding and not preceding & inside:
                return self._set(inside)
        if self._failing:
            return ""
        return r"\b" if place is op.AT_BOUNDARY else r"\B"

    def _first(self, items: list[Any], flags: int, backwards: bool = False) -> frozenset[str]:
        """The characters that a sequence can begin with; nothing if it can be empty."""
        for kind, value in items:
            if kind in _ONE_CHARACTER:
                return matched((kind, value), flags, self._alphabet)
            parts: list[Any]
            if kind is op.SUBPATTERN:
                flags = (flags | value[1]) & ~value[2]
                parts = [value[3]]
            elif kind is op.BRANCH:
                parts = value[1]
            elif kind in _REPEATS and value[0] > 0:
                parts = [value[2]]
            elif kind is op.ATOMIC_GROUP:
                parts = [value]
            elif self._is_assertion((kind, value)):
                continue
            else:
                return frozenset()
            found = [
                self._first(list(one)[::-1] if backwards else list(one), flags, backwards)
                for one in parts
            ]
            return frozenset().union(*found) if all(found) else frozenset()
        return frozenset()

    def _set(self, characters: frozenset[str]) -> str:
        """A set of characters, in ranges."""
        if characters == frozenset(self._alphabet):
            return rf"[^{NEVER}]"
        return f"[{_ranges(self._codes[one] for one in characters)}]" if characters else NEVER


def _codes(alphabet: str) -> dict[str, int]:
    """The code of each character; those beyond the basic plane, two to JavaScript, get others.

    Each character of the alphabet is only told from the others, so any code will do that none has.
    """
    beyond = [one for one in alphabet if ord(one) > _BASIC_PLANE]
    stand_ins = {one: _FIRST_STAND_IN + index for index, one in enumerate(beyond)}
    return {one: stand_ins.get(one, ord(one)) for one in alphabet}


def _ranges(codes: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for code in sorted(codes):
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(_escape(a) + (f"-{_escape(b)}" if b > a else "") for a, b in runs)


def _escape(code: int) -> str:
    return chr(code) if chr(code).isalnum() and code < 128 else f"\\u{code:04x}"
