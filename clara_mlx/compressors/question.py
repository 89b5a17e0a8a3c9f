"""What a question is after: its words in all their forms, and the names in it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from clara_mlx.store import asked
from clara_mlx.store.forms import stem
from clara_mlx.store.words import is_of_run

# A text with more words than this is no question for one thing, but what an agent thinks about.
_WORDS_OF_A_QUESTION = 12

# The same for a text that does not end as questions do, where parts of a name don't count: what is
# looked for has fewer words.
_WORDS_TO_LOOK_FOR = 4

# How questions end: in most scripts, full-width, in Arabic, in Greek.
_ENDS_OF_QUESTIONS = ("?", "\uff1f", "\u061f", "\u037e")

# How a sentence ends that says something, or what comes next: also full-width.
_ENDS_OF_STATEMENTS = (".", ":", "\u3002", "\uff1a")

# Characters of a word up to which its forms are looked for; of a longer one, only its beginning is.
_LONGEST_WORD = 64

# Questions that are kept as they were read.
_KEPT = 16

# Characters of a question above which only its beginning, its end and names are searched for.
_LONG = 8_000

# Characters of such names, all together.
_NAMES = 4_000

# A name of code or a number: what says most about what a long text is about.
_NAME = re.compile(r"\b[a-zA-Z]*+(?:\d|_|(?<=[a-z])[A-Z])\w*+")


class Term(NamedTuple):
    """Something that lines are looked through for, as `words.fold` writes it.

    Attributes:
        text: What they have.
        anywhere: Whether it may stand inside a word; if not, it begins a word or a part of a name,
            and what follows makes another form of it.
        weight: What it counts.
    """

    text: str
    anywhere: bool
    weight: float


def terms(question: str) -> list[Term]:
    """What to look for in lines, each once, in the question's order."""
    found: dict[tuple[str, bool], float] = {}
    for word in _read(question).words:
        anywhere = is_of_run(word.text) or word.is_beginning or len(word.text) > _LONGEST_WORD
        key = (word.text[:_LONGEST_WORD] if anywhere else stem(word.text), anywhere)
        found[key] = max(word.weight, found.get(key, 0.0))
    return [Term(text, anywhere, weight) for (text, anywhere), weight in found.items()]


@lru_cache(maxsize=_KEPT)
def _read(question: str) -> asked.Asked:
    return asked.read(shorten(question))


def is_thought(question: str) -> bool:
    """Whether a question names so much that it asks for no one thing.

    An agent that says what it is about to do needs what it has seen of it, not a single line. It
    does so in a sentence that does not end as questions do.
    """
    count = len(_read(question).words)
    text = question.rstrip()
    if text.endswith(_ENDS_OF_QUESTIONS):
        return count > _WORDS_OF_A_QUESTION
    if text.endswith(_ENDS_OF_STATEMENTS):
        return True
    written = len(question.split(maxsplit=_WORDS_OF_A_QUESTION))
    return count > _WORDS_OF_A_QUESTION or min(count, written) > _WORDS_TO_LOOK_FOR


def shorten(question: str) -> str:
    """A question as far as it is searched for.

    Of a very long one, that is its beginning, its end, and names that stand between them.
    """
    if len(question) <= _LONG:
        return question
    names: list[str] = []
    room = _NAMES
    for name in dict.fromkeys(_NAME.findall(question[_LONG // 2 : -_LONG // 2])):
        if len(name) < room:
            names.append(name)
            room -= len(name) + 1
    return "\n".join([question[: _LONG // 2], " ".join(names), question[-_LONG // 2 :]])
