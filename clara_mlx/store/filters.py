"""``where``: which memories a search, an export or a forget is about, as SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clara_mlx.errors import StoreError

# Keys with a meaning of their own; every other key is one of the metadata.
_COLUMNS = {
    "handle": "m.handle = ?",
    "source": "m.source = ?",
    "session": "m.session = ?",
    "after": "m.created_at >= ?",
    "before": "m.created_at < ?",
}


def condition(where: Mapping[str, Any] | None) -> tuple[str, list[Any]]:
    """An SQL condition over memories ``m`` and its parameters; all keys must hold.

    ``handle``, ``source`` and ``session`` are compared, ``after`` and ``before`` are seconds since
    1970, any other key is a key of the metadata. A list or tuple means any of its values.

    Raises:
        StoreError: a value is not a string, a number, a bool, None or a list of those.
    """
    parts, parameters = ["1"], []
    for key, value in (where or {}).items():
        values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        if not all(v is None or isinstance(v, str | int | float) for v in values):
            raise StoreError(f"where: {key} can't be compared with {value!r}")
        if key in ("after", "before"):
            if len(values) != 1 or not isinstance(values[0], int | float):
                raise StoreError(f"where: {key} is a time in seconds since 1970, not {value!r}")
            parts.append(_COLUMNS[key])
            parameters += values
        else:
            parts.append(f"({' OR '.join(_equals(key, v, parameters) for v in values) or '0'})")
    return " AND ".join(parts), parameters


def _equals(key: str, value: Any, parameters: list[Any]) -> str:
    if key in _COLUMNS:
        column = _COLUMNS[key].removesuffix(" = ?")
    else:
        parameters.append(f'$."{key}"' if re.fullmatch(r'[^"\\]+', key) else _no_key(key))
        column = "json_extract(m.metadata, ?)"
    if value is None:
        return f"{column} IS NULL"
    parameters.append(int(value) if isinstance(value, bool) else value)
    return f"{column} = ?"


def _no_key(key: str) -> str:
    raise StoreError(f"where: {key!r} can't be a key of metadata")
