"""The fields of a memory beside its content: what may be stored, and reading what older files hold.

Every door leads here: the library, the command line, the gateway's APIs and imports.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping
from typing import Any

from clara_mlx.errors import StoreError

#: The longest handle, source or session, in characters.
LONGEST_NAME = 4096

#: How deep objects and lists of metadata may be nested, the metadata itself included.
DEEPEST_METADATA = 32

#: The most metadata of one memory, in bytes of JSON.
MOST_METADATA = 64 * 1024

# The times that a date can be written for: from the year 1 to the year 9999, in seconds since 1970.
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799

# A string of JSON, to the end if it has none, or what opens or closes an object or a list.
_NESTING = re.compile(r'"(?:[^"\\]|\\.?)*+"?|[][{}]', re.DOTALL)

_TOO_DEEP = '"(left out: nested too deeply)"'


def check_name(field: str, name: Any) -> None:
    """Refuse a handle, source or session that is no plain string.

    Raises:
        StoreError: It is no string, too long, or has lone surrogates; ``field`` says which it is.
    """
    if not isinstance(name, str):
        raise StoreError(f"{field} must be a string, not {_kind(name)}")
    if not name and field == "handle":
        raise StoreError("handle must not be empty")
    if len(name) > LONGEST_NAME:
        raise StoreError(f"{field} has {len(name):,} characters; at most {LONGEST_NAME:,} may be")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"{field} must be Unicode: {error}") from error


def check_time(created_at: Any) -> None:
    """Refuse a time that is no number of seconds since 1970 within the years 1 to 9999.

    Raises:
        StoreError: It is none.
    """
    if isinstance(created_at, bool) or not isinstance(created_at, int | float):
        raise StoreError(f"created_at must be seconds since 1970, not {_kind(created_at)}")
    if not _EARLIEST <= created_at <= _LATEST:  # NaN is not, either
        raise StoreError("created_at must be seconds since 1970, within the years 1 to 9999")


def original_of(text: Any) -> tuple[bytes, str]:
    """The bytes of what is to be remembered, and its kind.

    Raises:
        StoreError: It is neither a text nor bytes.
    """
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass"), "text"
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text), "bytes"
    raise StoreError(f"what is remembered must be a str or bytes, not {type(text).__name__}")


def check_number(name: str, number: Any) -> int:
    """A number of things, which is 1 at least.

    Raises:
        StoreError: It is no whole number, or less.
    """
    try:
        whole = operator.index(number)
    except TypeError as error:
        raise StoreError(f"{name} must be a whole number, not {type(number).__name__}") from error
    if whole < 1:
        raise StoreError(f"{name} must be at least 1, got {whole}")
    return whole


def check_query(query: Any) -> None:
    """Check the type of what is looked for.

    Raises:
        StoreError: It is no string.
    """
    if not isinstance(query, str):
        raise StoreError(f"a query must be a string, not {type(query).__name__}")


def write_metadata(metadata: Any) -> str:
    """Metadata as JSON.

    Raises:
        StoreError: It is no mapping of strings to what JSON can hold, too deep or too large.
    """
    if not isinstance(metadata, Mapping):
        raise StoreError(f"metadata must be an object, not {_kind(metadata)}")
    copied = _copy(metadata, DEEPEST_METADATA)
    text = json.dumps(copied, ensure_ascii=True, allow_nan=False)
    if len(text) > MOST_METADATA:
        raise StoreError(
            f"metadata has {len(text):,} bytes as JSON; at most {MOST_METADATA:,} may be"
        )
    return text


def _copy(value: Any, depth: int) -> Any:
    """A value of metadata in the types that JSON has, which may be nested ``depth`` deep."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        # Readers of JSON may have nothing but doubles for numbers; larger ones become infinite.
        try:
            finite = math.isfinite(value)
        except OverflowError:
            finite = False
        if finite:
            return value
        raise StoreError("metadata must be JSON, whose numbers are finite doubles")
    if not isinstance(value, Mapping | list | tuple):
        raise StoreError(f"metadata must be JSON, which can't hold {_kind(value)}")
    if depth == 0:
        raise StoreError(f"metadata is nested more than {DEEPEST_METADATA} deep")
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise StoreError(
                f"metadata must be JSON, whose keys are strings, not {_kind(wrong[0])}"
            )
        return {key: _copy(item, depth - 1) for key, item in value.items()}
    return [_copy(item, depth - 1) for item in value]


def parse_metadata(text: Any) -> dict[str, Any]:
    """The metadata of a row. Of what an older clara-mlx let in, the depths are left out.

    Raises:
        ValueError: It is not a JSON object, so the row is damaged.
    """
    if not isinstance(text, str):
        raise ValueError(f"it is {_kind(text)} in the file")
    if text.count("[") + text.count("{") > DEEPEST_METADATA:
        text = _without_depths(text)
    metadata = json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError(f"it is {_kind(metadata)}")
    return metadata


def read_metadata(text: Any) -> dict[str, Any]:
    """The metadata of a row; words that say so if it is damaged, as the memory itself is sound."""
    try:
        return parse_metadata(text)
    except ValueError as error:
        return {"unreadable": f"the metadata of this memory is damaged: {error}"}


def _without_depths(text: str) -> str:
    """JSON whose objects and lists below the deepest level are replaced by words."""
    pieces = []
    depth = done = 0
    for match in _NESTING.finditer(text):
        if match[0] in "[{":
            if depth == DEEPEST_METADATA:
                pieces.append(text[done : match.start()] + _TOO_DEEP)
            depth += 1
        elif match[0] in "]}":
            depth -= 1
            if depth == DEEPEST_METADATA:
                done = match.end()
    return "".join(pieces) + text[done:]


def _kind(value: Any) -> str:
    """The kind of a value in the words of JSON, for error messages."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    words = {bool: "true or false", str: "a string", list: "a list", int: "a number"}
    return words.get(type(value), "a number" if isinstance(value, float) else type(value).__name__)
