"""The arguments of a call as one short line, in which the file's name and the last words stay."""

from __future__ import annotations

import json
import re
from typing import Any

from clara_mlx.tool_outputs.quoting import one_line, quote_markers

# Characters of a line with one argument; one with several may have twice as many.
_COMMAND = 120

# The fewest characters that each of several arguments gets.
_EACH = 24

# A folder that a command changes to is shortened if it has more characters.
_FOLDER = 24

# The number of arguments that a line shows.
_MOST_ARGUMENTS = 40

# Names of arguments that say where something is; such a value matters most at its end.
_PLACE = re.compile(r"(?:^|_)(?:path|file|dir|folder|uri|url|directory)|(?:file|path)(?:name)?s?$")

# A command that first changes to a folder.
_CHANGES_FOLDER = re.compile(r"\s*+cd (\S{1,400}+) *+&& *+")

# Pairs of names: what an edit looks for, and what it puts there.
_BEFORE_AND_AFTER = (("old", "new"), ("search", "replace"), ("before", "after"))


def short_command(arguments: str | None, own: str = "", most: int = _COMMAND) -> str:
    """The arguments of a call as one short line: the value of a single one, or names and values.

    A long value is shortened in its middle, a path at its beginning. Of an edit, what did not
    change is left out.

    Args:
        arguments: The arguments, as JSON.
        own: How the marker of their own block begins, if they are one.
        most: Characters for one argument, about; several get twice as many together.
    """
    parsed = parse_arguments(arguments or "{}")
    if parsed is None:
        return one_line(arguments or "", most, own)
    values = only_what_changed(texts_of(parsed))
    if len(values) == 1:
        ((name, value),) = values.items()
        return _short(name, value, most, own)
    shown = dict(list(values.items())[:_MOST_ARGUMENTS])
    room = 2 * most - sum(len(name) + 3 for name in shown)
    rooms: dict[str, int] = {}
    for left, name in zip(
        range(len(shown), 0, -1), sorted(shown, key=lambda name: len(shown[name])), strict=True
    ):
        rooms[name] = max(_EACH, room // left)
        room -= min(rooms[name], len(shown[name]))
    written = [f"{name}={_short(name, value, rooms[name], own)}" for name, value in shown.items()]
    return one_line(", ".join(written), 3 * most, own)


def parse_arguments(arguments: str) -> dict[str, Any] | None:
    """The arguments of a call by name; None if they are no JSON object."""
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def texts_of(values: dict[str, Any]) -> dict[str, str]:
    """The values of arguments as text: strings as they are, everything else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }


def only_what_changed(values: dict[str, str]) -> dict[str, str]:
    """The values without the lines that the two texts of an edit begin and end with alike."""
    found = dict(values)
    for name in values:
        for before, after in _BEFORE_AND_AFTER:
            other = after + name[len(before) :]
            if name.lower().startswith(before) and other in values:
                found[name], found[other] = _differing(values[name], values[other])
    return found


def middle(text: str, most: int, own: str = "") -> str:
    """A text as one line of about ``most`` characters: its beginning and its end."""
    if len(text) <= 4 * most:
        flat = " ".join(text.split())
        if len(flat) <= most:
            return quote_markers(flat, own)
        begins = ends = flat
    else:
        begins, ends = (" ".join(part.split()) for part in (text[: 4 * most], text[-4 * most :]))
    last = max(1, most * 2 // 5 - 2)
    cut = f"{begins[: max(1, most - last - 5)]} ... {ends[-last:]}"
    return one_line(cut, most + most // 3, own)


def _short(name: str, value: str, most: int, own: str) -> str:
    """The value of an argument in at most about so many characters."""
    if _PLACE.search(name.lower()):
        flat = " ".join(value[-4 * most :].split())
        cut = flat if len(flat) <= most and len(value) <= 4 * most else "..." + flat[3 - most :]
        return quote_markers(cut, own)
    folder = _CHANGES_FOLDER.match(value)
    if folder and len(folder[1]) > _FOLDER and len(value) > most:
        last = folder[1].rstrip("/").rpartition("/")[2]
        value = f"cd .../{last} && {value[folder.end() :]}"
    return middle(value, most, own)


def _differing(one: str, other: str) -> tuple[str, str]:
    """Two texts without the lines that both begin with, and those that both end with."""
    ones, others = one.split("\n"), other.split("\n")
    first = next(
        (i for i, (a, b) in enumerate(zip(ones, others, strict=False)) if a != b),
        min(len(ones), len(others)),
    )
    ones, others = ones[first:], others[first:]
    same = zip(reversed(ones), reversed(others), strict=False)
    last = next((i for i, (a, b) in enumerate(same) if a != b), min(len(ones), len(others)))
    return "\n".join(ones[: len(ones) - last]), "\n".join(others[: len(others) - last])


def subject_of(arguments: str, most: int) -> str:
    """What a call was about, in a few words: the file, or how its command begins."""
    parsed = parse_arguments(arguments)
    values = texts_of(parsed) if parsed else {"": arguments}
    places = [name for name in values if _PLACE.search(name.lower())]
    name = places[0] if places else next(iter(values), "")
    return one_line(_short(name, values.get(name, ""), most, ""), most)
