"""What a format of settings can do: read a text, and change one setting of it at a time.

A setting is named by its path: the keys that lead to it. The last step of a path may be `ITEM`: an
item of a list, which is known by its value and put first when it is new.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from clara_mlx.errors import ClaraError

#: The last step of a path that means an item of a list. No agent has a key of this name.
ITEM = "[+]"

#: What marks a line of ours in the formats that have comments.
MARK = "# by clara-mlx connect"

Path = tuple[str, ...]


class Unreadable(ClaraError):
    """A text is not in its format, or has a form that can't be edited safely."""


@dataclass(frozen=True)
class Splice:
    """One change of a text: ``old`` at a place becomes ``new``."""

    start: int  # characters before the change
    old: str
    new: str

    def apply(self, text: str) -> str:
        """The text with the change."""
        return text[: self.start] + self.new + text[self.start + len(self.old) :]


class Format(Protocol):
    """A format of settings files."""

    def parse(self, text: str) -> Any:
        """The data of a text, made of objects, lists and plain values; an empty text is ``{}``.

        Raises:
            Unreadable: The text is not in this format; the message says where.
        """

    def set(self, text: str, path: Path, value: Any) -> Splice:
        """The change that gives a setting a value; where there is none, it is added.

        Raises:
            Unreadable: Something on the way is not an object, or has a form that can't be edited.
        """

    def drop(self, text: str, path: Path, value: Any) -> Splice:
        """The change that removes a setting that is there; of a list, the item with this value."""

    def restore(self, text: str, path: Path, old: str) -> Splice:
        """The change that puts the text of an earlier setting in the place of one that is there."""


def plain(value: Any) -> Any:
    """A value as JSON has it, so that the data of all formats compare alike: dates become text."""
    return json.loads(json.dumps(value, default=str))


def newline_of(text: str) -> str:
    """The line end that a text uses."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def value_at(data: Any, path: Path, value: Any = None) -> tuple[bool, Any]:
    """Whether the data have a setting, and its value; of a list, whether it has the item."""
    for step in path:
        if step == ITEM:
            return (isinstance(data, list) and value in data), value
        if not isinstance(data, dict) or step not in data:
            return False, None
        data = data[step]
    return True, data


def with_value(data: Any, path: Path, value: Any) -> Any:
    """The data with a setting; the given data stay as they are."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if step == ITEM:
        return [value, *(data or [])]
    inner = data if isinstance(data, dict) else {}
    return {**inner, step: with_value(inner.get(step), rest, value)}


def without(data: Any, path: Path, value: Any = None) -> Any:
    """The data without a setting that is there; of a list, without the first item of the value."""
    step, rest = path[0], path[1:]
    if step == ITEM:
        at = data.index(value)
        return [*data[:at], *data[at + 1 :]]
    if rest:
        return {**data, step: without(data[step], rest, value)}
    return {key: each for key, each in data.items() if key != step}
