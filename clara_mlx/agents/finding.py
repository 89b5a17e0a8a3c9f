"""What a check has found, in one line: that all is well, or what is wrong and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``ok``: as it should be. ``note``: worth knowing. ``wrong``: something does not work.
Level = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: What was checked.
        level: Whether it is well.
        found: What was found, in a sentence.
        remedy: What to do; empty if there is nothing to do.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """The finding for people."""
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.level:5}  {self.check}: {self.found}{remedy}"


def ok(check: str, found: str) -> Finding:
    """A check that went well."""
    return Finding(check, "ok", found)


def note(check: str, found: str, remedy: str = "") -> Finding:
    """Something that is worth knowing, and no failure."""
    return Finding(check, "note", found, remedy)


def wrong(check: str, found: str, remedy: str) -> Finding:
    """Something that does not work, and what to do about it."""
    return Finding(check, "wrong", found, remedy)
