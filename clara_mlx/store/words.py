"""Words as the full-text index has them: in one spelling, names also in parts, any script.

The same functions read what is remembered and what is asked, so that both have the same words:

- Compatibility forms are one (full-width letters, ligatures, mathematical letters), case is folded
  (``ß`` is ``ss``), marks above and below letters are gone, and so are characters that nobody sees.
- Scripts that are written without spaces become pairs of characters, as no dictionary is at hand;
  the last character of a run also stands alone, so that every character begins a word.
- Pictures such as emoji are words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

# SQLite's tokenizer, unicode61 with '_' as a letter, splits ASCII at the same characters.
_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+")

# Scripts without spaces between words, and Korean, whose words have endings: Thai, Lao, Myanmar,
# Khmer, Chinese, Japanese.
_RUN = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f"
    "\u3040-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3005-\u3007"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
)
_IN_RUN = re.compile(f"[{_RUN}]")
_WORD_OR_RUN = re.compile(rf"(?P<run>[{_RUN}]+)|[^\W{_RUN}]+")

# Signs that are words, by their codes: dingbats and emoji, but nothing that progress bars draw.
_SIGNS = (
    range(0x23E9, 0x23FB),
    range(0x2600, 0x27C0),
    range(0x2B50, 0x2B56),
    range(0x1F000, 0x1FB00),
)

# Rare Chinese characters, each of which is a word.
_RARE_CHARACTERS = range(0x20000, 0x40000)

# The digits of a sign's number as letters, so that the word has no parts.
_LETTERS = str.maketrans("0123456789", "ghijklmnop")

# The marks that make other sounds of Japanese syllables.
_KEPT_MARKS = {0x3099, 0x309A}

# Words whose parts are kept at hand; most words of a text occur in it often.
_KEPT_WORDS = 1 << 16


class _Removed(dict[int, "str | int | None"]):
    """What becomes of each character once it is decomposed; filled as characters come."""

    def __missing__(self, code: int) -> str | int | None:
        character = chr(code)
        becomes: str | int | None = code
        if any(code in signs for signs in _SIGNS):
            becomes = f" {f'{code:x}'.translate(_LETTERS)} "
        elif code in _RARE_CHARACTERS:
            becomes = f" {character} "
        elif unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf") and (
            code not in _KEPT_MARKS
        ):
            becomes = None
        self[code] = becomes
        return becomes


_REMOVED = _Removed()


def fold(text: str) -> str:
    """A text in the one spelling in which words are compared."""
    if text.isascii():
        return text.lower()
    return spell(unicodedata.normalize("NFKD", text).casefold())


def spell(text: str) -> str:
    """A text in the one spelling of `fold`, in large and small letters as it is."""
    decomposed = unicodedata.normalize("NFKD", text)
    return unicodedata.normalize("NFC", decomposed.translate(_REMOVED))


def words_with_parts(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The words of a text in order, each with the parts of it that are words themselves.

    ``getUserName`` is ``getusername`` with the parts ``get``, ``user`` and ``name``.
    """
    if text.isascii():
        for word in _WORD.findall(text):
            yield _read_word(word)
        return
    for match in _WORD_OR_RUN.finditer(spell(text)):
        if match["run"]:
            for pair in _pairs(match[0].casefold()):
                yield pair, ()
        else:
            yield _read_word(match[0])


@lru_cache(maxsize=_KEPT_WORDS)
def _read_word(word: str) -> tuple[str, tuple[str, ...]]:
    pieces = _PART.findall(word)
    return fold(word), tuple(map(fold, pieces)) if len(pieces) > 1 else ()


def _pairs(run: str) -> Iterator[str]:
    """Each character of a run with the next one, and the last one alone."""
    for place in range(len(run)):
        yield run[place : place + 2]


def is_of_run(word: str) -> bool:
    """Whether a word is of a script without spaces: a character with the next one, or alone."""
    return _IN_RUN.match(word) is not None


def columns(text: str) -> tuple[str, str]:
    """A text as the two columns of the index: its words, and the parts of its compound words."""
    if text.isascii():
        return text, " ".join(filter(None, map(_parts_of, _WORD.findall(text))))
    found = list(words_with_parts(text))
    return " ".join(word for word, _ in found), " ".join(part for _, ps in found for part in ps)


@lru_cache(maxsize=_KEPT_WORDS)
def _parts_of(word: str) -> str:
    pieces = _PART.findall(word)
    return " ".join(pieces) if len(pieces) > 1 else ""
