"""Times as people write them: 2h, yesterday, 2026-11-30, 2026-11-30T14:05."""

from __future__ import annotations

from datetime import datetime, timedelta

import typer

# Seconds of a unit, by its letter.
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

# The most digits of a number of units; more would be before the year 1.
_MOST_DIGITS = 6

#: What `read_time` understands, for help and for errors.
FORMS = "2h, 3d, yesterday, 2026-11-30 or 2026-11-30T14:05"


def read_time(text: str, now: datetime | None = None) -> datetime:
    """The time that a text names, in this machine's time zone unless it says another one.

    Args:
        text: A span before now (``90s``, ``30m``, ``2h``, ``3d``, ``1w``), ``now``, ``today`` or
            ``yesterday`` (their midnight), or a date or time in ISO 8601.
        now: The present, for tests.

    Raises:
        BadParameter: It is none of these.
    """
    now = now or datetime.now().astimezone()
    word = text.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    named = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    if word in named:
        return named[word]
    number, unit = word[:-1].rstrip(), word[-1:]
    try:
        if unit in _UNITS and number.isascii() and number.isdigit():
            if len(number) <= _MOST_DIGITS:
                return now - timedelta(seconds=int(number) * _UNITS[unit])
            raise OverflowError
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is not a time: write {FORMS}") from error
