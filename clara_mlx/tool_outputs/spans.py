"""Spans of a text, as the rules for identifiers give them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

# Characters. A longer "identifier" is data, not a name; it is left out rather than cut.
MAX_LENGTH = 512

Span = tuple[int, int]
"""Where something starts and where it ends."""

Rule = Callable[[str], Iterator[Span]]
"""Finds the identifiers of one kind in a text that begins with a line feed."""


def every_match(pattern: re.Pattern[str]) -> Rule:
    """A rule for a pattern that matches nothing else; where it has groups, one of them matches."""
    return lambda text: (match.span(match.lastindex or 0) for match in pattern.finditer(text))
