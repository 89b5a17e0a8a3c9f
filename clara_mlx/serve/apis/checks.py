"""What the APIs have in common when they check a request: limits, and fields that are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clara_mlx.serve.errors import invalid_field

#: Messages of a request. Each costs work, and real conversations have far fewer: an agent makes
#: some hundred steps before its client ends it.
MOST_MESSAGES = 10_000

#: The parts of all messages together, and their calls.
MOST_PARTS = 10_000

#: Tools of a request; OpenAI takes 128.
MOST_TOOLS = 2_000


def check_whole_number(given: Mapping[str, Any], name: str, least: int = 1) -> None:
    """Raise an `ApiError` unless a field is absent, or a whole number of at least ``least``."""
    value = given.get(name, least)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise invalid_field(name, f"must be a whole number of at least {least}")


def check_number(given: Mapping[str, Any], name: str, most: int) -> None:
    """Raise an `ApiError` unless a field is absent, or a number from 0 to ``most``."""
    value = given.get(name, 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise invalid_field(name, f"must be a number from 0 to {most}")
