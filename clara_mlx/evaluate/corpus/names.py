"""Names and numbers of one split: what training sees, evaluation never draws, and vice versa.

A stable hash of a word decides whether it belongs to the test split, as about 15 of 100 words do.
The same holds for the printed form of pseudo-words, hashes, dates, versions and all numbers of 20
or more; there are too few numbers below 20 to split. A quarter of all name parts are pseudo-words,
pronounceable or not, so that a model has to copy what it reads instead of choosing from a list.
"""

from __future__ import annotations

import random
import tomllib
import zlib
from collections.abc import Callable, Sequence
from importlib import resources

SPLITS = ("train", "test")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
PSEUDO_WORDS = 0.25  # share of the name parts that are pseudo-words

_LISTS = tomllib.loads(resources.files(__package__).joinpath("words.toml").read_text("utf-8"))
WORDS = tuple(_LISTS["words"].split())
FIRST_NAMES = tuple(_LISTS["first_names"].split())
LAST_NAMES = tuple(_LISTS["last_names"].split())

_CONSONANTS = "bcdfghjklmnprstvwz"
_VOWELS = "aeiou"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_HEX = "0123456789abcdef"


def held_out(text: str) -> bool:
    """Whether a word or the printed form of a value belongs to the test split, in any case.

    The answer is the same on every machine and in every run.
    """
    return zlib.crc32(text.lower().encode()) % 100 < 15


def _by_split(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {
        "train": tuple(word for word in words if not held_out(word)),
        "test": tuple(word for word in words if held_out(word)),
    }


_WORDS = _by_split(WORDS)
_FIRST_NAMES = _by_split(FIRST_NAMES)
_LAST_NAMES = _by_split(LAST_NAMES)


class Names:
    """Draws names and values of one split.

    Args:
        rng: The only source of chance.
        split: ``train`` or ``test``.
    """

    def __init__(self, rng: random.Random, split: str) -> None:
        self.rng = rng
        self._test = split == "test"
        self._words = _WORDS[split]
        self._first_names = _FIRST_NAMES[split]
        self._last_names = _LAST_NAMES[split]

    def belongs(self, text: str) -> bool:
        """Whether a word or printed value of 20 or more belongs to this split."""
        return held_out(text) == self._test

    def all_belong(self, *values: int) -> bool:
        """Whether all of these numbers may be printed in this split."""
        return all(value < 20 or self.belongs(str(value)) for value in values)

    def draw_until_ours(self, draw: Callable[[], str]) -> str:
        """Draw until a text belongs to this split."""
        text = draw()
        while not self.belongs(text):
            text = draw()
        return text

    # Words, and names that are composed of them.

    def word(self) -> str:
        """A lower-case name part: a listed word or, every fourth time, a pseudo-word."""
        rng = self.rng
        if rng.random() >= PSEUDO_WORDS:
            return self._words[int(rng.random() * len(self._words))]
        return self.draw_until_ours(self._pseudo_word)

    def _pseudo_word(self) -> str:
        rng = self.rng
        style = rng.random()
        if style < 0.6:  # pronounceable
            text = "".join(
                rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 2, 3)))
            )
            return text + rng.choice(_CONSONANTS) if rng.random() < 0.5 else text
        if style < 0.85:
            return "".join(rng.choices(_LETTERS, k=rng.choice((3, 4, 5))))
        return rng.choice(_LETTERS) + "".join(rng.choices(_HEX, k=rng.choice((2, 3, 4))))

    def parts(self, low: int = 1, high: int = 2) -> list[str]:
        """From ``low`` to ``high`` name parts."""
        return [self.word() for _ in range(self.rng.randint(low, high))]

    def snake(self, low: int = 1, high: int = 2) -> str:
        """A name such as ``copper_tide``."""
        return "_".join(self.parts(low, high))

    def kebab(self, low: int = 1, high: int = 2) -> str:
        """A name such as ``copper-tide``."""
        return "-".join(self.parts(low, high))

    def constant(self, low: int = 1, high: int = 2) -> str:
        """A name such as ``COPPER_TIDE``."""
        return self.snake(low, high).upper()

    def camel(self, low: int = 1, high: int = 2) -> str:
        """A name such as ``CopperTide``."""
        return "".join(part.capitalize() for part in self.parts(low, high))

    def mixed(self, low: int = 2, high: int = 2) -> str:
        """A name such as ``copperTide``."""
        first, *rest = self.parts(low, high)
        return first + "".join(part.capitalize() for part in rest)

    def person(self) -> tuple[str, str]:
        """A given name and a family name, capitalised."""
        rng = self.rng
        if rng.random() < PSEUDO_WORDS:
            return self.draw_until_ours(self._pseudo_name).capitalize(), self.draw_until_ours(
                self._pseudo_name
            ).capitalize()
        return rng.choice(self._first_names).capitalize(), rng.choice(self._last_names).capitalize()

    def _pseudo_name(self) -> str:
        rng = self.rng
        return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(2)) + (
            rng.choice(_CONSONANTS) if rng.random() < 0.5 else ""
        )

    def user(self) -> str:
        """A login name."""
        return self.person()[0].lower()

    # Paths.

    def folder(self, tops: Sequence[str] = ("src", "lib", "app", "core", "pkg")) -> str:
        """A short relative folder, such as ``src/copper``."""
        rng = self.rng
        if rng.random() < 0.3:
            return rng.choice(tops)
        if rng.random() < 0.4:
            return self.word()
        return f"{rng.choice(tops)}/{self.word()}"

    def file(self, ending: str) -> str:
        """A file name such as ``copper_tide.py``."""
        return f"{self.snake()}.{ending}"

    def path(self, ending: str, tops: Sequence[str] = ("src", "lib", "app", "core", "pkg")) -> str:
        """A relative path such as ``src/copper/tide.py``."""
        if self.rng.random() < 0.15:
            return self.file(ending)
        return f"{self.folder(tops)}/{self.file(ending)}"

    # Values.

    def number(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``; the range should be wide or below 20."""
        rng = self.rng
        while True:
            value = rng.randint(low, high)
            if self.all_belong(value):
                return value

    def count(self, high: int = 400) -> int:
        """A count from 1; small counts come more often, on a logarithmic scale."""
        rng = self.rng
        while True:
            value = int(high ** rng.random())
            if self.all_belong(value):
                return value

    def addend(self, total: int, high: int) -> int:
        """A number from 1 to ``high`` whose sum with ``total`` belongs to this split too.

        If there is no such number, ``high`` grows.
        """
        while True:
            value = self.number(1, high)
            high += 1
            if self.all_belong(total + value):
                return value

    def at_least(self, low: int, spread: int, extra: int = 0) -> int:
        """A number from ``low`` to ``low + spread`` that belongs to this split.

        Its sum with ``extra`` belongs to it, too. If there is no such number, ``spread`` grows.
        """
        while True:
            value = low + int((spread + 1) * self.rng.random())
            spread += 1
            if self.all_belong(value, value + extra):
                return value

    def line(self) -> int:
        """A line number from 2 to about 900; small numbers come more often."""
        rng = self.rng
        while True:
            value = int(2 ** (1 + 8.8 * rng.random()))
            if self.all_belong(value):
                return value

    def decimal(self, low: float, high: float, digits: int = 2) -> str:
        """A number with ``digits`` decimals, such as ``3.14``."""
        return self.draw_until_ours(lambda: f"{self.rng.uniform(low, high):.{digits}f}")

    def seconds(self) -> str:
        """A duration in seconds, mostly short."""
        return self.decimal(0.01, 4) if self.rng.random() < 0.7 else self.decimal(4, 90)

    def hex(self, length: int) -> str:
        """Random hexadecimal digits, such as a commit hash; the first seven decide the split."""
        head = self.draw_until_ours(lambda: "".join(self.rng.choices(_HEX, k=min(length, 7))))
        return head + "".join(self.rng.choices(_HEX, k=length - len(head)))

    def version(self) -> str:
        """Three numbers, such as ``1.14.2``."""
        rng = self.rng
        return self.draw_until_ours(
            lambda: f"{int(6 * rng.random() ** 2)}.{rng.randint(0, 30)}.{rng.randint(0, 19)}"
        )

    def date(self) -> str:
        """A day of 2023 to 2026, such as ``2025-03-14``."""
        rng = self.rng
        return self.draw_until_ours(
            lambda: f"{rng.randint(2023, 2026)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        )

    def clock(self) -> str:
        """A time of day, such as ``09:41:07``."""
        rng = self.rng
        return self.draw_until_ours(
            lambda: f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        )
