"""The forms of a word: ``restarted``, ``restarts`` and ``restarting`` are one word to a question.

Forms are looked for when a question is asked, so they take no room in the index, and what was
remembered before has them, too. Two words are forms of each other if their stems are equal. A stem
is what is left without an ending (English, Russian and its neighbours) or an article (Arabic); it
need not be a word, and a wrong one only brings in words that rank below exact ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from clara_mlx.store import terms
from clara_mlx.store.terms import Term
from clara_mlx.store.words import fold

# The fewest letters of a word with an ending, and of its stem.
_LEAST_WORD = 4
_LEAST_STEM = 3

# Endings of English, each before those that it ends with.
_ENDINGS = (
    *("ations", "ation", "itions", "ition", "ators", "ator", "ating", "ated", "ates", "ate"),
    *("ings", "ing", "ions", "ion", "ments", "ment", "ures", "ure", "ers", "ies", "ied", "ors"),
    *("es", "ed", "er", "or", "s", "e"),
)

# Their s is no plural's.
_NO_PLURALS = ("ss", "us", "is")

# Endings before which a consonant is doubled: stopped, stopping.
_AFTER_DOUBLED = ("ed", "ing", "er", "ers")

# Consonants that are often doubled without an ending: call, pass, buzz.
_OFTEN_DOUBLE = "lsz"

# Endings of nouns, adjectives and verbs of Russian and its neighbours, likewise.
_ENDINGS_WITH_MARKS = (
    *("иями", "ями", "ами", "иях", "ях", "ах", "ого", "его", "ому", "ему", "ыми", "ими"),
    *("ией", "ться", "ется", "ются", "ует", "ают", "ешь", "ть", "ла", "ло", "ли", "ил", "ал"),
    *("ов", "ев", "ей", "ой", "ый", "ий", "ая", "яя", "ое", "ее", "ые", "ие", "ые", "ых", "их"),
    *("ым", "им", "ом", "ем", "ам", "ям", "ию", "ью", "ия", "ья", "ии", "ет", "ит", "ут", "ют"),
    *("а", "я", "о", "е", "и", "ы", "у", "ю", "й", "ь"),
)

# Without marks, as `words.fold` writes them.
_CYRILLIC_ENDINGS = tuple(dict.fromkeys(map(fold, _ENDINGS_WITH_MARKS)))

_CYRILLIC = re.compile("[\u0430-\u04ff]{5,}")
_LEAST_CYRILLIC_STEM = 4

# The article of Arabic, with what is written before it, and what is written before a word alone.
_ARTICLES = ("وال", "بال", "كال", "فال", "ال", "لل")
_ARABIC = re.compile("[\u0620-\u064a]{4,}")

# Words whose stems are kept at hand.
_KEPT_STEMS = 1 << 16


@lru_cache(maxsize=_KEPT_STEMS)
def stem(word: str) -> str:
    """What a word has in common with its other forms; itself if it has no ending that is known.

    Args:
        word: As `words.fold` writes it.
    """
    if len(word) < _LEAST_WORD:
        return word
    if word.isascii():
        return _english_stem(word) if word.isalpha() else word
    if _CYRILLIC.fullmatch(word):
        return _without_ending(word, _CYRILLIC_ENDINGS, _LEAST_CYRILLIC_STEM)
    if _ARABIC.fullmatch(word):
        for article in _ARTICLES:
            if word.startswith(article) and len(word) - len(article) >= _LEAST_STEM:
                return word[len(article) :]
    return word


def _english_stem(word: str) -> str:
    if word.endswith(_NO_PLURALS):
        return word
    rest = _without_ending(word, _ENDINGS, _LEAST_STEM)
    ending = word[len(rest) :]
    if ending in ("ies", "ied"):
        return rest + "y"
    if len(rest) > _LEAST_STEM:
        if ending in _AFTER_DOUBLED and rest[-1] == rest[-2] and rest[-1] not in _OFTEN_DOUBLE:
            return rest[:-1]
        if rest.endswith("ick"):  # panic, panicked
            return rest[:-1]
        if ending:
            return rest.removesuffix("e")
    return rest


def _without_ending(word: str, endings: tuple[str, ...], least: int) -> str:
    for ending in endings:
        if word.endswith(ending) and len(word) - len(ending) >= least:
            return word[: len(word) - len(ending)]
    return word


def patterns(word: str) -> Iterator[Term]:
    """What may be other forms of a word, as terms; most are no words of any text."""
    root = stem(word)
    if word.isascii():
        if word.isalpha() and len(word) >= _LEAST_WORD - 1:
            for form in _english_forms(root):
                if form != word and stem(form) == root:
                    yield terms.word(form)
    elif _CYRILLIC.fullmatch(word):
        yield terms.word(root, is_beginning=True)
    elif _ARABIC.fullmatch(word) or _ARABIC.fullmatch("ال" + word):
        for article in ("", *_ARTICLES):
            if article + root != word:
                yield terms.word(article + root)


def _english_forms(root: str) -> Iterator[str]:
    yield root
    for ending in _ENDINGS:
        yield root + ending
    if root.endswith("y"):
        yield root[:-1] + "ies"
        yield root[:-1] + "ied"
        return
    doubled = root + ("k" if root.endswith("c") else root[-1:])
    for ending in (*_AFTER_DOUBLED, *(("", "s") if root.endswith("ic") else ())):
        yield doubled + ending
