"""``where`` as SQL: the filter of memories for searching, listing, exporting and forgetting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clara_mlx.errors import StoreError

# Keys with a meaning of their own; every other key is looked up in the metadata.
_COLUMNS = {"handle": "m.handle", "source": "m.source", "session": "m.session"}
_TIMES = {"after": "m.created_at >= ?", "before": "m.created_at < ?"}

#: Conditions on handle, source, session, after, before, or keys of the metadata; None matches all.
Where = Mapping[str, Any] | None


def condition(where: Where) -> tuple[str, list[Any]]:
    """A filter as an SQL condition over memories ``m``, and its parameters.

    Args:
        where: Values by key, all of which must match. ``handle``, ``source`` and ``session`` are
            compared, ``after`` and ``before`` are seconds since 1970, and any other key is looked
            up in the metadata. A list or tuple matches any of its values.

    Raises:
        StoreError: A value is not a string, a number, a bool, None or a list of those.
    """
    parts = ["1"]
    parameters: list[Any] = []
    for key, value in (where or {}).items():
        values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        if not all(v is None or isinstance(v, str | int | float) for v in values):
            raise StoreError(f"where: {key} can't be compared with {value!r}")
        if key in _TIMES:
            if len(values) != 1 or not isinstance(values[0], int | float):
                raise StoreError(f"where: {key} is a time in seconds since 1970, not {value!r}")
            parts.append(_TIMES[key])
            parameters += values
        else:
            parts.append(f"({' OR '.join(_equals(key, v, parameters) for v in values) or '0'})")
    return " AND ".join(parts), parameters


def _equals(key: str, value: Any, parameters: list[Any]) -> str:
    """A condition for one value of a key; adds what it compares with to the parameters."""
    if key in _COLUMNS:
        column = _COLUMNS[key]
    elif re.fullmatch(r'[^"\\]+', key):
        column = "json_extract(m.metadata, ?)"
        parameters.append(f'$."{key}"')
    else:
        raise StoreError(f"where: {key!r} can't be a key of metadata")
    if value is None:
        return f"{column} IS NULL"
    parameters.append(int(value) if isinstance(value, bool) else value)
    return f"{column} = ?"
