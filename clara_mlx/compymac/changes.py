"""Changes to objects of another program, and the way back to how they were."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any


class Changes:
    """Changes to CompyMac's objects; `undo` takes them back, the last one first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def set_attribute(self, target: Any, name: str, value: Any) -> None:
        """Set an attribute of an instance; `undo` restores or deletes it."""
        if name in vars(target):
            before = vars(target)[name]
            self._undo.append(lambda: setattr(target, name, before))
        else:
            self._undo.append(lambda: delattr(target, name))
        setattr(target, name, value)

    def append(self, target: list[str], name: str) -> None:
        """Append a name to a list; `undo` takes one such name out, so that others' stay."""
        target.append(name)
        self._undo.append(lambda: target.remove(name))

    def restore_entries(self, target: Any, names: Collection[str]) -> None:
        """Have `undo` put back what an instance's tables say of names, however that gets there.

        Its tables are the dicts among its attributes, and the sets among those of its attributes.
        """
        tables = [(table, dict(table)) for table in _dicts(target)]
        known = {id(members): set(members) for members in _sets(target)}

        def restore() -> None:
            for table, before in tables:
                for name in set(names) & set(table):
                    del table[name]
                table.update({name: before[name] for name in names if name in before})
            for members in _sets(target):  # new ones, where a toolset was set anew
                members -= set(names) - known.get(id(members), set())

        self._undo.append(restore)

    def undo(self) -> None:
        """Take everything back."""
        while self._undo:
            self._undo.pop()()


def _dicts(target: Any) -> list[dict[Any, Any]]:
    return [value for value in vars(target).values() if isinstance(value, dict)]


def _sets(target: Any) -> list[set[Any]]:
    owners = [value for value in vars(target).values() if hasattr(value, "__dict__")]
    return [one for owner in owners for one in vars(owner).values() if isinstance(one, set)]
