"""The date of a time where this process runs, as SQL: the server may be in another time zone."""

from __future__ import annotations

import time
from functools import lru_cache

_DAY = 86_400

# Days before today within which the clock's changes are known; single rounds are not kept longer.
_DAYS = 800


def local_date(seconds: str) -> str:
    """The date of a time in seconds since 1970, as SQL of PostgreSQL that needs no time zone."""
    offset = _offset(seconds, int(time.time()) // _DAY, (*time.tzname, time.timezone))
    local = f"to_timestamp({seconds} + {offset}) AT TIME ZONE 'UTC'"
    return f"to_char({local}, 'YYYY-MM-DD')"


@lru_cache(maxsize=64)
def _offset(seconds: str, today: int, zone: tuple[object, ...]) -> str:
    """The seconds that the clock here was ahead of UTC at a time, in the zone that it is set to."""
    first, last = _DAY * (today - _DAYS), _DAY * (today + 2)
    changes: list[tuple[int, int]] = []  # until when, and what it was ahead
    for start in range(first, last, _DAY):
        if _ahead(start) != _ahead(start + _DAY):
            changes.append((_change(start, start + _DAY), _ahead(start)))
    if not changes:
        return str(_ahead(last))
    whens = " ".join(f"WHEN {seconds} < {until} THEN {ahead}" for until, ahead in changes)
    return f"CASE {whens} ELSE {_ahead(last)} END"


def _change(before: int, after: int) -> int:
    """The first second at which the clock is as at ``after``."""
    while after - before > 1:
        middle = (before + after) // 2
        if _ahead(middle) == _ahead(before):
            before = middle
        else:
            after = middle
    return after


def _ahead(seconds: int) -> int:
    return time.localtime(seconds).tm_gmtoff
