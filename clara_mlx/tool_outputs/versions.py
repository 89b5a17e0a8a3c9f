"""What tells one state of something from another: versions, hashes and UUIDs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.spans import Span, every_match

# 01234567-89ab-cdef-0123-456789abcdef
_UUID = re.compile(
    r"[0-9A-Fa-f](?<![\w-].)[0-9A-Fa-f]{7}-"
    r"[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(?![\w-])"
)
# 1ea647bb49a5d795353e7ad85e7be4346e633cc2
_HASH = re.compile(r"[0-9a-f](?<![\w-].)(?<!\d\..)[0-9a-f]{6,127}+(?![\w-])")
_HASH_LENGTHS = frozenset((32, 40, 56, 64, 96, 128))  # hexadecimal digits, of MD5 to SHA-512


def hashes(text: str) -> Iterator[Span]:
    """Hexadecimal digests, whole or shortened."""
    for match in _HASH.finditer(text):
        value = match[0]
        letters = value.strip("0123456789")
        mixed = letters not in ("", "e") and not value.isalpha()
        full = len(value) in _HASH_LENGTHS and len(set(value)) > 4
        if mixed or full or text.endswith("commit ", 0, match.start()):
            yield match.span()


# v1.2.3-rc.1
_VERSION = re.compile(
    r"([v\d](?<![\w.].)(?:(?<=v)\d{1,9}+|(?<!v)\d{0,8}+)(?:\.\d{1,9}+){1,4}+)"
    r"((?:[-+.]?(?:alpha|beta|pre|a|b|rc|dev|post)[.-]?\d{0,9}+){0,3}(?:[+-][0-9A-Za-z.-]{1,60}+)?)"
    r"(?![\w%])(?!\.\w)"
)
# version:
_BEFORE_VERSION = re.compile(
    r"(?<=[=<>~!]=)|(?<=[@^~])|(?i:(?<=\bversion)|(?<=\bversion[: ])|(?<=\bversion: ))"
)


def versions(text: str) -> Iterator[Span]:
    """Versions: three numbers or more, or two that the text calls a version."""
    for match in _VERSION.finditer(text):
        start, end = match.span()
        number, suffix = match.groups()
        parts = number.split(".")
        # Two numbers with a dot are a decimal, and three can be a date, unless the text says that
        # they are a version.
        in_doubt = _is_date(parts) if len(parts) > 2 else number[0] != "v"
        if in_doubt and not suffix and not _BEFORE_VERSION.match(text, _before(text, start)):
            continue
        # Four small numbers are an address.
        if len(parts) != 4 or number[0] == "v" or any(int(part) > 255 for part in parts):
            yield start, end


def _is_date(parts: list[str]) -> bool:
    """Whether numbers are a day, a month and a year, as many countries write a date."""
    if len(parts) != 3 or len(parts[2]) != 4 or not parts[0].isdecimal():
        return False
    day, month, year = map(int, parts)
    return 1 <= day <= 31 and 1 <= month <= 12 and 1900 <= year < 2100


def _before(text: str, start: int) -> int:
    """Where what stands before ``start`` ends, without a line feed."""
    return start - (text[start - 1] == "\n")


uuids = every_match(_UUID)
