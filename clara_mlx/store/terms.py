"""What a full-text index is asked for, before it becomes the query of one database.

A query is a tree of three levels: an index finds any of several *alternatives*; an alternative is
*groups* that must all match; and a group is one word in its forms, any of which will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """A word, the beginning of words, or several words in a row.

    Attributes:
        words: As `words.fold` writes them, which is without quotes and spaces.
        is_beginning: Longer words that begin with the last one are found, too.
    """

    words: tuple[str, ...]
    is_beginning: bool = False


#: Terms any of which will do.
Group = tuple[Term, ...]

#: Groups that must all match; any of these is enough.
Alternatives = Sequence[Sequence[Group]]


def word(text: str, *, is_beginning: bool = False) -> Term:
    """One word as a term."""
    return Term((text,), is_beginning)


def any_of(groups: Sequence[Group]) -> Alternatives:
    """What matches any of some groups."""
    return [[group] for group in groups]
