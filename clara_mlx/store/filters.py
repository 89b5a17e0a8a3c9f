"""``where`` as SQL: the filter of memories for searching, listing, exporting and forgetting."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from clara_mlx.errors import StoreError
from clara_mlx.store.dialect import Dialect
from clara_mlx.store.sqlite_dialect import SQLITE

#: Chunks of memories, for filters on memories ``m``.
CHUNKS = "FROM chunks ch JOIN memories m ON m.content_id = ch.content_id"

#: The most values of one filter, all its lists together; SQLite takes 32,766 parameters.
MOST_VALUES = 30_000

#: The most keys of one filter; SQLite takes 1,000 conditions in a row.
MOST_KEYS = 100

# Keys with a meaning of their own; every other key is looked up in the metadata.
_COLUMNS = {"handle": "m.handle", "source": "m.source", "session": "m.session"}
_TIMES = {"after": "m.created_at >= ?", "before": "m.created_at < ?"}

# What a JSON path can name between quotes.
_METADATA_KEY = re.compile(r'[^"\\\0]+')

#: Conditions on handle, source, session, after, before, or keys of the metadata; None matches all.
Where = Mapping[str, Any] | None


def condition(where: Where, dialect: Dialect = SQLITE) -> tuple[str, list[Any]]:
    """A filter as an SQL condition over memories ``m``, and its parameters.

    Args:
        where: Values by key, all of which must match. ``handle``, ``source`` and ``session`` are
            compared, ``after`` and ``before`` are times (a datetime, or seconds since 1970), and
            any other key is looked up in the metadata. A list or tuple matches any of its values,
            and an empty one nothing; None matches what is absent. Values of metadata match by type
            as JSON has them: 1 and 1.0 are equal, 1 and true are not.
        dialect: The database's.

    Raises:
        StoreError: A key can't be one of metadata, a value can't be compared (a string, a finite
            number, a bool, None or a list of those can), or there are too many of either.
    """
    if where is not None and not isinstance(where, Mapping):
        raise StoreError(f"where: a filter is a dict of values by key, not {type(where).__name__}")
    if where is not None and len(where) > MOST_KEYS:
        raise StoreError(f"where: a filter has at most {MOST_KEYS} keys")
    parts = ["TRUE"]
    parameters: list[Any] = []
    count = 0
    for key, value in (where or {}).items():
        if not _is_text(key):
            raise StoreError(f"where: {_shown(key)} can't be a key of metadata")
        if key in _TIMES:
            seconds = value.timestamp() if isinstance(value, datetime) else value
            if not _is_number(seconds):
                raise StoreError(
                    f"where: {key} is a datetime, or a time in seconds since 1970, not "
                    f"{_shown(value)}"
                )
            parts.append(_TIMES[key])
            parameters.append(seconds)
            continue
        values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        comparable = _is_text if key in _COLUMNS else _is_plain
        for one in values:
            if not (one is None or comparable(one)):
                raise StoreError(f"where: {_shown(key)} can't be compared with {_shown(one)}")
        count += len(values)
        if count > MOST_VALUES:
            raise StoreError(f"where: a filter has at most {MOST_VALUES:,} values")
        if key in _COLUMNS:
            matches = _match_column(_COLUMNS[key], values, parameters, dialect)
        elif _METADATA_KEY.fullmatch(key):
            matches = dialect.metadata_conditions(key, values, parameters)
        else:
            raise StoreError(f"where: {_shown(key)} can't be a key of metadata")
        parts.append(f"({' OR '.join(matches) or 'FALSE'})")
    return " AND ".join(parts), parameters


def handles(where: Where) -> list[str] | None:
    """The handles that a filter names; None if it does not limit them to named ones."""
    named = (where or {}).get("handle")
    values: list[Any] = (
        list(named) if isinstance(named, list | tuple | set | frozenset) else [named]
    )
    return None if None in values else values


def mistyped(where: Where) -> list[tuple[str, str]]:
    """Keys of a filter that look like one with a meaning of its own, with the latter.

    They are valid, since every other key is looked up in the metadata.
    """
    own = [*_COLUMNS, *_TIMES]
    near = {key: difflib.get_close_matches(key, own, 1, 0.8) for key in where or {}}
    return [(key, found[0]) for key, found in near.items() if found and key not in own]


def _match_column(
    column: str, values: Sequence[Any], parameters: list[Any], dialect: Dialect
) -> Iterable[str]:
    """Conditions for the values of a column, strings or None; adds their parameters."""
    if None in values:
        yield f"{column} IS NULL"
    if texts := [value for value in values if value is not None]:
        match, added = dialect.is_one_of(column, texts)
        parameters += added
        yield match


def _is_text(value: Any) -> bool:
    """Whether a value is a string that SQLite can hold: one without lone surrogates."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    """Whether a value is a number that SQLite can hold: finite, whole ones of 64 bits at most."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _is_plain(value: Any) -> bool:
    """Whether a value is a string, number or bool that SQLite can hold."""
    return isinstance(value, bool) or _is_text(value) or _is_number(value)


def _shown(value: Any) -> str:
    """A value for an error message, which it must not fill."""
    if not isinstance(value, str | float | bool | None):
        return f"this {type(value).__name__}"
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
