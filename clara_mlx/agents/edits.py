"""The edits of one settings file: made in its text, and taken out of a text that has changed since.

Whatever is done to a text is checked against its data: connecting changes our settings and nothing
else, and so does taking them out. If that can't be done, the text stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clara_mlx.agents.agent import Setting
from clara_mlx.agents.formats import FORMATS
from clara_mlx.agents.formats.format import (
    ITEM,
    Format,
    Splice,
    Unreadable,
    plain,
    value_at,
    with_value,
    without,
)

# Places at which the exact text of an edit is tried; more would be no settings file of a person.
_MOST_PLACES = 20


# What an object or a list without members may be: YAML has nothing in its place.
_EMPTY: tuple[Any, ...] = ({}, [], None)


@dataclass(frozen=True)
class Edit:
    """One setting that was made, with all that undoing it needs."""

    path: tuple[str, ...]
    value: Any
    old: str  # the text that was replaced; empty if something was added
    new: str  # the text in its place
    had: bool = False  # whether the setting had a value before
    before: Any = None  # that value
    made: int = 0  # the objects on the way that were made for it
    volatile: bool = False  # see `Setting`

    @property
    def name(self) -> str:
        """What people call the setting."""
        return ".".join(step for step in self.path if step != ITEM)

    def stands_in(self, data: Any) -> bool:
        """Whether the data have the setting as it was made."""
        is_there, found = value_at(data, self.path, self.value)
        return is_there and (self.volatile or bool(found == self.value))


def make_edits(text: str, settings: Sequence[Setting], kind: str) -> tuple[str, list[Edit]]:
    """A text with settings made in it, and the edits that did it, in the order of their making.

    Settings that have their values already are left alone.

    Raises:
        Unreadable: The text can't be read, or can't be edited without changing anything else.
    """
    form = FORMATS[kind]
    wanted = form.parse(text)
    edits: list[Edit] = []
    # What is added comes first in its object, so the last is made first.
    for setting in reversed(settings):
        value = plain(setting.value)
        is_there, found = value_at(wanted, setting.path, value)
        if is_there and found == value:
            continue
        splice = form.set(text, setting.path, setting.value)
        edits.append(
            Edit(
                setting.path,
                value,
                splice.old,
                splice.new,
                had=is_there,
                before=found if is_there else None,
                made=_missing(wanted, setting.path),
                volatile=setting.volatile,
            )
        )
        wanted = with_value(wanted, setting.path, value)
        text = splice.apply(text)
        if form.parse(text) != wanted:
            raise Unreadable(
                f"{edits[-1].name} can't be set without changing other settings; set it by hand"
            )
    return text, edits


def undo_edits(text: str, edits: Sequence[Edit], kind: str) -> tuple[str, list[str]]:
    """A text with edits taken out, and the names of settings that are another's by now.

    A setting that was changed since is left as it is, and so is all that others wrote.

    Raises:
        Unreadable: The text can't be read, or the edits can't be taken out of it.
    """
    form = FORMATS[kind]
    if not text.strip():
        return text, []
    data = form.parse(text)
    ours, changed = [], []
    for edit in reversed(edits):
        if edit.stands_in(data):
            ours.append(edit)
        elif value_at(data, edit.path, edit.value)[0]:
            changed.append(edit.name)
    for edit in ours:
        text = _undo(text, edit, form)
    return text, changed


def _undo(text: str, edit: Edit, form: Format) -> str:
    """Take one edit out: by its exact text where that is found, else by its place."""
    data = form.parse(text)
    wanted = _data_before(data, edit)
    at = text.find(edit.new)
    for _ in range(_MOST_PLACES):
        if at < 0 or not edit.new:
            break
        exact = Splice(at, edit.new, edit.old).apply(text)
        if _has_data(exact, wanted, form, edit):
            return exact
        at = text.find(edit.new, at + 1)
    if edit.had and edit.path[-1] != ITEM:
        text = form.restore(text, edit.path, edit.old).apply(text)
    else:
        text = form.drop(text, edit.path, edit.value).apply(text)
        data = form.parse(text)
        for depth in range(len(edit.path) - 1, len(edit.path) - 1 - edit.made, -1):
            if value_at(data, edit.path[:depth])[1] in _EMPTY:
                text = form.drop(text, edit.path[:depth], {}).apply(text)
                data = form.parse(text)
    if not _has_data(text, wanted, form, edit):
        raise Unreadable(f"{edit.name} can't be taken out without changing other settings")
    return text


def _has_data(text: str, wanted: Any, form: Format, edit: Edit) -> bool:
    """Whether a text has the data that are wanted, whatever form has what is empty now."""
    try:
        data = form.parse(text)
    except Unreadable:
        return False
    parent = edit.path[:-1]
    empties = [value_at(one, parent) for one in (data, wanted)]
    if parent and all(is_there and found in _EMPTY for is_there, found in empties):
        data = with_value(data, parent, empties[1][1])
    return bool(data == wanted)


def _data_before(data: Any, edit: Edit) -> Any:
    """The data without an edit, and without the objects that were made for it and hold no more."""
    if edit.had and edit.path[-1] != ITEM:
        return with_value(data, edit.path, edit.before)
    data = without(data, edit.path, edit.value)
    for depth in range(len(edit.path) - 1, len(edit.path) - 1 - edit.made, -1):
        if value_at(data, edit.path[:depth])[1] in _EMPTY:
            data = without(data, edit.path[:depth])
    return data


def _missing(data: Any, path: tuple[str, ...]) -> int:
    """The objects on a path that are not there yet."""
    for depth in range(1, len(path)):
        if not value_at(data, path[:depth])[0]:
            return len(path) - depth
    return 0


def as_json(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """Edits as they are recorded."""
    return [{**vars(edit), "path": list(edit.path)} for edit in edits]


def from_json(recorded: Sequence[dict[str, Any]]) -> list[Edit]:
    """Edits from what was recorded.

    Raises:
        TypeError: It is something else.
    """
    edits = [Edit(**one) for one in recorded]
    return [replace(edit, path=tuple(edit.path)) for edit in edits]
