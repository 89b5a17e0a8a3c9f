"""JSON from outside, read in bounded time: few enough values, not nested too deeply, all finite.

Python's parser lets nothing else run until it is done. The length of strings costs it little: 32
MiB of any strings take a tenth of a second, but of empty lists two seconds and a gigabyte. So
values are counted first, by steps between which other threads run.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable
from typing import Any

# Values of a request. A conversation of 5,000 messages with calls has about 60,000.
MOST_VALUES = 250_000

# Values of an endpoint's answer: 4,096 tokens with the log probabilities of 20 others each.
MOST_VALUES_OF_ANSWER = 1_000_000

# Levels of lists and objects; a tool's JSON Schema has about 20.
DEEPEST = 100

# Characters of the place of a value, in an error.
_PATH_CHARACTERS = 100

# What stands in the place of numbers that are none in JSON, in an endpoint's answer.
_CONSTANTS = {"-Infinity": -9999.0, "Infinity": None, "NaN": None}

# A string, also one without an end, or what begins another value.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{,]', re.DOTALL)


class BadJson(ValueError):
    """Text that is no JSON, or too much of it; the message continues "the request"."""


class TooMuchJson(BadJson):
    """JSON with too many values."""


def read_value(content: bytes, most: int = MOST_VALUES) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
        content: The text.
        most: The most values that it may have, keys not counted.

    Raises:
        BadJson: It is not JSON, has too many values or levels, or a number without a finite value.
    """
    infinite: list[str] = []

    def read_float(number: str) -> float:
        value = float(number)
        if math.isinf(value):
            infinite.append(number)
        return value

    value = _parse(content, most, _refuse_constant, read_float)
    if infinite:
        raise BadJson(f"has a number that is too large, at {_find_infinity(value)}")
    return value


def read_answer(content: bytes) -> Any:
    """The value of what an endpoint sent; numbers that JSON has no form for get a value.

    Python writes such numbers all the same: ``mlx_lm.server`` gives tokens that are ruled out a
    logarithm of -Infinity, which becomes the -9999.0 that OpenAI's API has there.

    Raises:
        BadJson: It is not JSON, or has too many values or levels.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    return _parse(content, MOST_VALUES_OF_ANSWER, _CONSTANTS.get, _read_finite)


def without_surrogates(text: str) -> str:
    """A text in which the replacement character stands for each lone surrogate.

    UTF-8 has no bytes for these; JSON may name them all the same.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def parse_finite(text: str) -> Any:
    """The value of a JSON text that is known to be one; its numbers are made finite."""
    return json.loads(text, parse_constant=_CONSTANTS.get, parse_float=_read_finite)


def _parse(
    content: bytes,
    most: int,
    constant: Callable[[str], Any],
    number: Callable[[str], Any] | None = None,
) -> Any:
    check_size(content, most)
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=constant, parse_float=number)
    except UnicodeDecodeError as error:
        raise BadJson(f"is not UTF-8: see byte {error.start}") from None
    except RecursionError:
        raise BadJson(f"has JSON of more than {DEEPEST} levels") from None
    except ValueError as error:
        raise BadJson(f"is not JSON: {error}") from None
    if _is_deeper(value, DEEPEST):
        raise BadJson(f"has JSON of more than {DEEPEST} levels")
    return value


def check_size(content: bytes, most: int = MOST_VALUES) -> None:
    """Count the values of a JSON text.

    Raises:
        TooMuchJson: There are more than ``most``.
    """
    if sum(map(content.count, (b"[", b"{", b","))) < most:
        return  # the usual case: even those in strings are few
    values = 1
    strings = 0
    for token in _TOKEN.finditer(content):
        if content[token.start()] == 34:  # a quotation mark
            strings += 1
        else:
            values += 1
        # Keys are strings, too; so there are at most two strings for each value.
        if values > most or strings > 2 * most:
            raise TooMuchJson(f"has more than {most:,} JSON values")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _read_finite(number: str) -> Any:
    value = float(number)
    return value if math.isfinite(value) else _CONSTANTS["-Infinity" if value < 0 else "Infinity"]


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in more levels than these."""
    layer = [value]
    for _ in range(levels + 1):
        inner = [one for one in layer if isinstance(one, dict | list)]
        if not inner:
            return False
        layer = [v for one in inner for v in (one.values() if isinstance(one, dict) else one)]
    return True


def _find_infinity(value: Any) -> str | None:
    """The place of the first number that is infinite, such as "messages[0].x"; or None."""
    layer = [("", value)]
    while layer:
        inner: list[tuple[str, Any]] = []
        for path, one in layer:
            if isinstance(one, dict):
                inner += [(f"{path}.{key}"[:_PATH_CHARACTERS], v) for key, v in one.items()]
            elif isinstance(one, list):
                inner += [(f"{path}[{i}]"[:_PATH_CHARACTERS], v) for i, v in enumerate(one)]
            elif isinstance(one, float) and math.isinf(one):
                return path.removeprefix(".")
        layer = inner
    return None
