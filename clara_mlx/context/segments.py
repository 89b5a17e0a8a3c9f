"""Segments: a rendered prompt is cut so that their tokens add up to those of the whole.

A tokenizer finds its added tokens first, such as ``<|im_start|>``, and what stands between two of
them becomes tokens by itself. So a segment that begins with one always has the same tokens, and
those of segments that were counted before are known: a prompt costs what is new in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any


def cutting_pattern(added: Iterable[Any]) -> re.Pattern[str] | None:
    """A pattern of the added tokens at which every text can be cut; None if there are none.

    Args:
        added: All added tokens, as `tokenizers.AddedToken`.
    """
    tokens = list(added)
    texts = {token.content for token in tokens}
    cuts = [
        token.content
        for token in tokens
        if token.content
        and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
        and not any(_takes_from(other, token.content) for other in texts)
    ]
    return re.compile("|".join(map(re.escape, cuts))) if cuts else None


def cut(text: str, pattern: re.Pattern[str]) -> Sequence[str]:
    """The segments of a text; each but the first begins with an added token."""
    starts = [0, *(match.start() for match in pattern.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(starts) if start < end]


def _takes_from(other: str, token: str) -> bool:
    """Whether another added token could be found where a token, or its beginning, stands."""
    if other != token and token in other:
        return True
    return any(other.endswith(token[:size]) for size in range(1, min(len(other), len(token))))
