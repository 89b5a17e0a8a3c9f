"""JSON, with the comments and trailing commas that agents allow in it, edited by splicing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.agents.formats.format import ITEM, Path, Splice, Unreadable, newline_of, plain

_DECODER = json.JSONDecoder()

# Levels of nesting in a settings file; more would exhaust Python's stack.
_DEEPEST = 200


@dataclass
class Node:
    """A value of the text, with its place; ``end`` is the character after it."""

    start: int
    end: int
    value: Any
    members: list[Member] = field(default_factory=list)  # of an object or a list


@dataclass
class Member:
    """A member of an object, or an item of a list, which has no key."""

    key: str | None
    start: int  # of the key, or of the item
    node: Node


class JsonFormat:
    """JSON and JSON with comments."""

    def parse(self, text: str) -> Any:
        """See `Format.parse`."""
        return plain(_read(text).value) if text.strip() else {}

    def set(self, text: str, path: Path, value: Any) -> Splice:
        """See `Format.set`."""
        newline = newline_of(text)
        unit = _unit(text)
        if not text.strip():
            for step in reversed(path):
                value = [value] if step == ITEM else {step: value}
            return Splice(0, text, _dump(value, unit, "", newline) + newline)
        node = _read(text)
        for number, step in enumerate(path):
            want = list if step == ITEM else dict
            if not isinstance(node.value, want):
                named = ".".join(path[:number]) or "the file"
                kind = "a list" if want is list else "an object"
                raise Unreadable(f"{named} is not {kind}, so that {'.'.join(path)} can't be set")
            member = None if step == ITEM else _last(node, step)
            if member is None:
                for missing in reversed(path[number + 1 :]):
                    value = [value] if missing == ITEM else {missing: value}
                return _insert(text, node, None if step == ITEM else step, value, unit, newline)
            node = member.node
        indent = _indent_of_line(text, member.start) if member else ""
        start = member.start if member else node.start
        head = text[start : node.start]
        return Splice(start, text[start : node.end], head + _dump(value, unit, indent, newline))

    def drop(self, text: str, path: Path, value: Any) -> Splice:
        """See `Format.drop`."""
        parent, member = _member_at(text, path, value)
        at = parent.members.index(member)
        start, end = member.start, member.node.end
        comma = _skip(text, end)
        if text.startswith(",", comma):
            end = comma + 1
        elif at:  # the last one: the comma before it goes, too
            before = parent.members[at - 1].node.end
            comma = _skip(text, before)
            if not text[comma + 1 : start].strip():
                return Splice(comma, text[comma:end], "")
            # a comment stands between; it stays, and a comma before it is allowed only without
            return Splice(comma, text[comma:end], text[comma + 1 : start].rstrip(" \t"))
        line = text.rfind("\n", 0, start) + 1
        if not text[line:start].strip():  # it has its line for itself
            rest = text.find("\n", end)
            if rest >= 0 and not text[end:rest].strip():
                return Splice(line, text[line : rest + 1], "")
        while end < len(text) and text[end] in " \t":
            end += 1
        return Splice(start, text[start:end], "")

    def restore(self, text: str, path: Path, old: str) -> Splice:
        """See `Format.restore`."""
        _, member = _member_at(text, path, None)
        return Splice(member.start, text[member.start : member.node.end], old)


def _member_at(text: str, path: Path, value: Any) -> tuple[Node, Member]:
    """A member that is there, with the object or list that it is in."""
    node = _read(text)
    for step in path:
        parent = node
        if step == ITEM:
            member = next(one for one in node.members if plain(one.node.value) == value)
        else:
            found = _last(node, step)
            assert found is not None  # the caller has looked
            member = found
        node = member.node
    return parent, member


def _last(node: Node, key: str) -> Member | None:
    """The member with a key: the last, as all readers of JSON take it."""
    return next((one for one in reversed(node.members) if one.key == key), None)


def _insert(
    text: str, parent: Node, key: str | None, value: Any, unit: str, newline: str
) -> Splice:
    """The change that adds a first member, in the way that the others are laid out."""
    head = "" if key is None else json.dumps(key, ensure_ascii=False) + ": "
    inside = parent.start + 1
    outer = _indent_of_line(text, parent.start)
    if not parent.members:
        indent = outer + unit
        new = newline + indent + head + _dump(value, unit, indent, newline)
        if "\n" not in text[inside : parent.end - 1]:
            new += newline + outer
        return Splice(inside, "", new)
    first = parent.members[0].start
    line = _line_after(text, inside, first)
    if line is None:  # all in one line
        compact = json.dumps(value, ensure_ascii=False)
        return Splice(first, "", f"{head}{compact}, ")
    indent = _indent_of_line(text, first)
    return Splice(line, "", indent + head + _dump(value, unit, indent, newline) + "," + newline)


def _line_after(text: str, start: int, end: int) -> int | None:
    """Where the next line begins, if only space and comments are before it."""
    at = start
    while at < end:
        if text[at] == "\n":
            return at + 1
        if text.startswith("/*", at):
            at = text.index("*/", at) + 2
        elif text.startswith("//", at):
            at = text.index("\n", at)
        else:
            at += 1
    return None


def _dump(value: Any, unit: str, indent: str, newline: str) -> str:
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return (newline + indent).join(lines)


def _unit(text: str) -> str:
    """The indentation of one level: that of the first line that has any."""
    for line in text.split("\n", 200)[:200]:
        body = line.lstrip(" \t")
        if body.startswith('"') and body != line:
            return line[: len(line) - len(body)]
    return "  "


def _indent_of_line(text: str, at: int) -> str:
    line = text.rfind("\n", 0, at) + 1
    end = line
    while end < at and text[end] in " \t":
        end += 1
    return text[line:end]


# -- reading -------------------------------------------------------------------------------------


def _read(text: str) -> Node:
    """The tree of a text.

    Raises:
        Unreadable: The text is not JSON; the message says in which line.
    """
    node = _value(text, _skip(text, 0), 0)
    end = _skip(text, node.end)
    if end < len(text):
        raise _wrong(text, end, "there is more after the end")
    return node


def _wrong(text: str, at: int, what: str) -> Unreadable:
    return Unreadable(f"line {text.count(chr(10), 0, at) + 1}: {what}")


def _skip(text: str, at: int) -> int:
    """The next character that is neither space nor in a comment."""
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text.startswith("//", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif text.startswith("/*", at):
            end = text.find("*/", at + 2)
            if end < 0:
                raise _wrong(text, at, "a comment has no end")
            at = end + 2
        else:
            break
    return at


def _value(text: str, at: int, depth: int) -> Node:
    if depth > _DEEPEST:
        raise _wrong(text, at, "it is nested too deeply")
    if text.startswith(("{", "["), at):
        return _container(text, at, depth)
    try:
        value, end = _DECODER.raw_decode(text, at)
    except ValueError:
        raise _wrong(text, at, "a value is missing or is not JSON") from None
    return Node(at, end, value)


def _container(text: str, start: int, depth: int) -> Node:
    is_object = text[start] == "{"
    close = "}" if is_object else "]"
    members: list[Member] = []
    at = _skip(text, start + 1)
    while not text.startswith(close, at):
        key = None
        begin = at
        if is_object:
            name = _value(text, at, depth)
            if not isinstance(name.value, str):
                raise _wrong(text, at, "a key must be in double quotes")
            key = name.value
            at = _skip(text, name.end)
            if not text.startswith(":", at):
                raise _wrong(text, at, "a colon is missing after a key")
            at = _skip(text, at + 1)
        node = _value(text, at, depth + 1)
        members.append(Member(key, begin, node))
        at = _skip(text, node.end)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith(close, at):
            raise _wrong(text, at, f"a comma or {close} is missing")
    value: Any = (
        {one.key: one.node.value for one in members}
        if is_object
        else [one.node.value for one in members]
    )
    return Node(start, at + 1, value, members)
