"""Messages of exceptions and programs: the templates in messages.toml, filled with names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any

from clara_mlx.evaluate.corpus.names import Names

_FILE = resources.files(__package__) / "messages.toml"
MESSAGES: dict[str, Any] = tomllib.loads(_FILE.read_text("utf-8"))
"""What programs say, by kind of program; most are templates for `compose`."""

_SLOT = re.compile(r"<(\w+)>")


def compose(names: Names, template: str) -> str:
    """Fill each slot of a template with a name or value drawn for it."""
    draws = {
        "word": names.word,
        "kebab": names.kebab,
        "snake": names.snake,
        "camel": names.camel,
        "mixed": names.mixed,
        "version": names.version,
    }

    def fill(match: re.Match[str]) -> str:
        slot = match[1]
        if slot == "n":
            return str(names.count(5000))
        if slot == "path":
            return names.path(names.rng.choice(("json", "csv", "toml", "txt", "db")), ("data",))
        return draws[slot]()

    return _SLOT.sub(fill, template)


_EXCEPTIONS = tuple(MESSAGES["exceptions"])


def exception(names: Names) -> tuple[str, str]:
    """A Python exception's type and message."""
    rng = names.rng
    if rng.random() < 0.25:
        return names.camel() + "Error", failure(names)
    kind = rng.choice(_EXCEPTIONS)
    return kind, compose(names, rng.choice(MESSAGES["exceptions"][kind]))


def log_message(names: Names) -> str:
    """The message of one line of a log."""
    return compose(names, names.rng.choice(MESSAGES["log"]))


def times(names: Names) -> Iterator[str]:
    """Yield times of day, each a little after the one before; after midnight they start again."""
    rng = names.rng
    second = rng.randrange(60_000)
    while True:
        second = (second + rng.randint(1, 90)) % 86_400
        text = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        if names.belongs(text):
            yield text


def log_lines(names: Names) -> Iterator[str]:
    """Yield endless lines of one program's log, none of which is an error."""
    rng = names.rng
    day = names.date()
    style = rng.choice(("{day} {time} {level} {name}: ", "{day} {time} - {name} - {level} - "))
    for time in times(names):
        level = rng.choice(("INFO", "INFO", "DEBUG", "WARNING"))
        yield style.format(day=day, time=time, level=level, name=names.word()) + log_message(names)


def code_line(names: Names) -> str:
    """A line of Python that could raise."""
    return names.rng.choice(
        (
            f"return {names.snake()}({names.word()})",
            f"{names.word()} = self.{names.snake()}[{names.word()}]",
            f"{names.word()}.{names.snake()}()",
            f"with open({names.word()}) as file:",
            f"for {names.word()} in {names.snake()}:",
        )
    )


def failure(names: Names) -> str:
    """The message of a program of the user's own after a failure."""
    return compose(names, names.rng.choice(MESSAGES["own_exceptions"]))


def unequal_values(names: Names, quote: str = "'") -> tuple[str, str]:
    """Two different numbers or quoted names, such as an actual and an expected value."""
    while True:
        if names.rng.random() < 0.5:
            first, second = str(names.number(0, 999)), str(names.number(0, 999))
        else:
            first = f"{quote}{names.kebab()}{quote}"
            second = f"{quote}{names.kebab()}{quote}"
        if first != second:
            return first, second


def test_name(names: Names) -> str:
    """A test function such as ``test_copper_tide``."""
    return "test_" + names.snake(1, names.rng.choice((1, 2, 2, 3)))


def subject(names: Names) -> str:
    """The first line of a commit message."""
    return compose(names, names.rng.choice(MESSAGES["subjects"]))
