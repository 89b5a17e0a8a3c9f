"""What a query asks for: its words, without those that only make it a question."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from clara_mlx.store import fts5, terms, words
from clara_mlx.store.terms import Term
from clara_mlx.tool_outputs.undress import undress

# A query has at most this many terms, and is cut off after as many characters: SQLite takes half a
# second for so many words, and the square of that for more.
MOST_TERMS = 500
_QUERY_CHARACTERS = 65_536

# The most names that are read, as the same ones may come again and again.
_MOST_NAMES = 4 * MOST_TERMS

# The most words of a phrase.
_PHRASE_WORDS = 32

# Only so many words at the beginning of a query are looked for in other forms, or where longer
# words begin with them; a longer query is a text, which has enough words.
_WITH_FORMS = 32

# The weight of a part of a compound name, beside the name itself.
_PART_WEIGHT = 0.5

_HEX = re.compile(r"(?=.*\d)[0-9a-f]{6,}")

# What an apostrophe leaves of a short word: what's, isn't, they're.
_AFTER_APOSTROPHE = frozenset(("s", "t", "re", "ve", "ll", "d", "m"))
_APOSTROPHE = re.compile("['\u2019]")

# Words that ask, and those that hold a question together. Texts rarely have "which", so by its
# rarity it would weigh more than what the question is about. Of other languages only what asks is
# here: their small words are words of English or of programs.
_ASKING = frozenset(
    re.findall(
        r"\w+",
        "a an and are aren as at be been being but by can could did didn do does doesn doing done "
        "don for from had has have having how i if in into is isn it its itself many me might much "
        "must my of on onto or our shall should so some such than that the their them then there "
        "these they this those to us was wasn we were weren what when where which while who whom "
        "whose why will with would you your "
        # German, French, Spanish, Italian, Portuguese, Dutch, Polish, Turkish
        "welche welchem welchen welcher welches wie warum wann wieso wer "
        "quel quelle quelles quels quoi pourquoi combien "
        "cual cuales cuando cuanto cuantos donde quien quienes "
        "quale quali quando quanto quanti perche dove qual quais onde porque "
        "welk welke waar waarom wanneer hoe ktory ktora ktore gdzie dlaczego kiedy "
        "hangi nerede neden nicin "
        # Russian, Ukrainian, Arabic, without their marks
        "какои какая какое какие каком какого как кто что чего где когда почему зачем сколько "
        "якии яка яке яки де коли чому скильки ماذا متى اين لماذا كيف هل "
        # Chinese, Japanese, Korean: pairs of characters
        "什么 什麼 哪个 哪個 哪些 哪里 哪裡 怎么 怎麼 为什 為什 多少 何时 几个 "
        "どの どれ どこ なぜ いつ だれ 何故 何処 です すか ます 어디 무엇 언제 누가 어떤 무슨 "
        "어떻 떻게",
    )
)


@dataclass(frozen=True)
class Word:
    """A word of a query.

    Attributes:
        text: As `words.fold` writes it.
        term: The term that finds it.
        weight: How much it counts, beside its rarity.
        is_beginning: It is found where a longer word begins with it, too.
    """

    text: str
    term: Term
    weight: float
    is_beginning: bool


@dataclass(frozen=True)
class Asked:
    """A query, read.

    Attributes:
        words: Its words, each once.
        phrases: Terms for the names of several words, such as paths.
        pairs: Indices of words that follow one another in the query.
    """

    words: tuple[Word, ...]
    phrases: tuple[Term, ...]
    pairs: tuple[tuple[int, int], ...]

    def terms(self) -> list[Term]:
        """The words and phrases that are looked for, at most `MOST_TERMS`."""
        return [*(word.term for word in self.words), *self.phrases][:MOST_TERMS]

    def beginnings(self) -> list[tuple[int, str]]:
        """The words, with their indices, that are looked for where longer words begin with them."""
        return [(i, w.text) for i, w in enumerate(self.words[:_WITH_FORMS]) if w.is_beginning]

    def with_longer(self, texts: Iterable[str]) -> Asked:
        """The query with longer words that some of its words are parts of."""
        known = {word.text for word in self.words}
        more = [
            Word(text, terms.word(text), _PART_WEIGHT, False)
            for text in dict.fromkeys(texts)
            if text not in known
        ]
        return replace(self, words=(*self.words, *more)[:MOST_TERMS])

    def has_forms(self, index: int) -> bool:
        """Whether a word, given its index, is looked for in other forms."""
        return index < _WITH_FORMS and not self.words[index].is_beginning


def read(query: str) -> Asked:
    """Read a query; it may be any text, of which the first words are taken.

    A name of several words (``tests/test_io.py::test_load``) is also searched as a phrase, which
    ranks exact names first. Hexadecimal ids match by prefix, as git shortens them.
    """
    found: dict[str, Word] = {}  # by their text, in order
    phrases: dict[Term, None] = {}
    order: list[str] = []  # the words that stand in the query themselves, as often as they do
    text = undress(query[:_QUERY_CHARACTERS]).text  # it may be a line that was copied
    for name in text.split(maxsplit=_MOST_NAMES)[:_MOST_NAMES]:
        read_words = _words_of(name)
        if len(read_words) > 1:
            phrases[Term(tuple(word for word, _ in read_words[:_PHRASE_WORDS]))] = None
        apostrophe = bool(_APOSTROPHE.search(name))
        for place, (text, parts) in enumerate(read_words):
            if place and apostrophe and text in _AFTER_APOSTROPHE:
                continue
            alone = len(text) == 1 and words.is_of_run(text)
            beginning = alone or bool(_HEX.fullmatch(text))
            term = terms.word(text, is_beginning=beginning)
            _add(found, Word(text, term, 1.0, beginning))
            order.append(text)
            for part in parts:
                _add(found, Word(part, terms.word(part), _PART_WEIGHT, False))
        if len(found) + len(phrases) >= MOST_TERMS:
            break
    kept = [word for word in found.values() if word.text not in _ASKING] or [*found.values()]
    index = {word.text: place for place, word in enumerate(kept[:MOST_TERMS])}
    present = [index[text] for text in order if text in index]
    pairs = dict.fromkeys((one, next) for one, next in pairwise(present) if one != next)
    return Asked(tuple(kept[:MOST_TERMS]), tuple(phrases), tuple(pairs))


def query(text: str) -> str | None:
    """A query of FTS5 that matches any word of a text; None if the text has none."""
    return fts5.match(terms.any_of([(term,) for term in read(text).terms()])) or None


def _words_of(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """The words of a name, without the ends of runs, whose characters their last pairs have."""
    found = [*words.words_with_parts(name)]
    return [
        one
        for place, one in enumerate(found)
        if not (
            place
            and len(one[0]) == 1
            and words.is_of_run(one[0])
            and len(found[place - 1][0]) == 2
            and found[place - 1][0].endswith(one[0])
        )
    ]


def _add(found: dict[str, Word], word: Word) -> None:
    """Add a word, or what more it counts than it did so far."""
    before = found.setdefault(word.text, word)
    if before.weight < word.weight:
        found[word.text] = replace(before, weight=word.weight)
