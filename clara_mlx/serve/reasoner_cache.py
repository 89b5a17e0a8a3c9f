"""What the reasoner's server keeps of a prompt that changes: stated, or learnt from its counts."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from clara_mlx.context.budget import Cache
from clara_mlx.context.cache_kinds import cache_of_folder

logger = logging.getLogger(__name__)

#: How it is known: nothing says so, an option, the reasoner's config, or its server's own counts.
KnownBy = Literal["assumed", "setting", "config", "observed"]

#: What a user may say of it.
Option = Literal["auto", "trimmable", "whole"]

# Tokens that a prompt must have in common with the one before it to say anything.
_LEAST_TOKENS = 1000

# Above this share of them reported as cached they were kept; below the other they were not.
_KEPT = 0.75
_LOST = 0.25

# Signs of one kind in a row that are believed.
_SIGNS = 2

# Newest appended prompts that must have been cached: a server that loses those loses everything.
_APPENDED = 2


@dataclass
class ReasonerCache:
    """What the reasoner's server keeps of a prompt that changes.

    What an option or the config says is final. Otherwise two edits in a row decide. That nothing
    was cached after one counts only while prompts that are merely appended to are cached: then it
    was the edit, and not another conversation that took the place.

    Attributes:
        kind: What it keeps.
        known_by: How that is known.
    """

    kind: Cache = "trimmable"
    known_by: KnownBy = "assumed"
    _signs: deque[Cache] = field(default_factory=lambda: deque(maxlen=_SIGNS))
    _appended: deque[bool] = field(default_factory=lambda: deque(maxlen=_APPENDED))

    def for_status(self) -> dict[str, str]:
        """Both, by name."""
        return {"kind": self.kind, "known_by": self.known_by}

    def expected(self, common: int, *, appended: bool) -> int:
        """Tokens of a prompt that the server should have.

        Args:
            common: Tokens at its beginning that it has in common with the one before it.
            appended: Whether nothing in that one was changed.
        """
        return 0 if self.kind == "whole" and not appended else common

    def observe(self, common: int, reported: int, *, appended: bool) -> None:
        """Learn from what the server says it had of a prompt; see `expected`."""
        if self.known_by in ("setting", "config") or common < _LEAST_TOKENS:
            return
        kept = reported > _KEPT * common
        if appended:
            self._appended.append(kept)
            if not kept:
                self._signs.clear()
        elif kept:
            self._add_sign("trimmable")
        elif reported < _LOST * common and self._appended.count(True) == _APPENDED:
            self._add_sign("whole")

    def _add_sign(self, sign: Cache) -> None:
        self._signs.append(sign)
        if self._signs.count(sign) == _SIGNS:
            if sign != self.kind:
                logger.info("the reasoner's cache is %s, as its counts of cached tokens show", sign)
            self.kind, self.known_by = sign, "observed"


def stated_cache(option: Option, folder: Path | None) -> ReasonerCache:
    """What an option says of the cache or, if that is ``auto``, the config in a folder."""
    if option != "auto":
        return ReasonerCache(option, "setting")
    found = cache_of_folder(folder) if folder else None
    return ReasonerCache(found, "config") if found else ReasonerCache()
