"""Messages of exceptions and programs: templates with slots for names and values."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.evaluate.corpus.names import Names

#: Messages by Python exception type.
EXCEPTIONS: dict[str, tuple[str, ...]] = {
    "ValueError": (
        "invalid <word> '<kebab>'",
        "unknown <word>: <kebab>",
        "<snake> must be at least <n>, got <n>",
        "<snake> must not be negative",
        "could not convert string to float: '<kebab>'",
        "invalid literal for int() with base 10: '<kebab>'",
        "not enough values to unpack (expected 3, got 2)",
        "<word> and <word> differ in length: <n> and <n>",
        "'<kebab>' is not a valid <camel>",
    ),
    "KeyError": ("'<snake>'", "'<kebab>'", "'<mixed>'"),
    "TypeError": (
        "<snake>() missing 1 required positional argument: '<word>'",
        "<snake>() got an unexpected keyword argument '<snake>'",
        "<snake>() takes 2 positional arguments but 3 were given",
        "'<camel>' object is not callable",
        "'<camel>' object is not iterable",
        "unsupported operand type(s) for +: 'int' and '<camel>'",
        "expected str, bytes or os.PathLike object, not <camel>",
    ),
    "AttributeError": (
        "'<camel>' object has no attribute '<snake>'",
        "module '<snake>' has no attribute '<snake>'",
        "'NoneType' object has no attribute '<snake>'",
    ),
    "IndexError": (
        "list index out of range",
        "index <n> is out of bounds for axis 0 with size <n>",
    ),
    "FileNotFoundError": ("[Errno 2] No such file or directory: '<path>'",),
    "PermissionError": ("[Errno 13] Permission denied: '<path>'",),
    "ModuleNotFoundError": ("No module named '<snake>'", "No module named '<word>.<word>'"),
    "ImportError": ("cannot import name '<camel>' from '<snake>'",),
    "NameError": ("name '<snake>' is not defined",),
    "ZeroDivisionError": ("division by zero",),
    "RuntimeError": (
        "<word> <kebab> is already closed",
        "<camel> is not initialised",
        "worker <n> died while handling <kebab>",
        "cannot <word> twice: <kebab>",
        "event loop is closed",
    ),
    "TimeoutError": (
        "no answer from <kebab> after <n> seconds",
        "timed out waiting for <kebab>",
    ),
    "ConnectionError": (
        "cannot connect to <kebab>:<n>",
        "connection to <kebab> was lost",
        "host <kebab> refused the connection",
    ),
    "OSError": ("[Errno 28] No space left on device: '<path>'",),
    "RecursionError": ("maximum recursion depth exceeded",),
    "UnicodeDecodeError": ("'utf-8' codec can't decode byte 0xff in position <n>",),
    "NotImplementedError": ("<snake> of <camel>", "<camel> has no <word> yet"),
}

#: Messages of a project's own exception types.
OWN_EXCEPTION = (
    "<word> <kebab> not found",
    "<word> of <kebab> is too large: <n>",
    "missing <word> for <kebab>",
    "cannot <word> <kebab>",
    "<snake> expired",
    "duplicate <word> <kebab>",
    "<kebab> failed with status <n>",
)

#: Lines of a program's log.
LOG = (
    "loaded <n> rows from <path>",
    "<word> <kebab> started",
    "processed <n> items of <kebab>",
    "retrying <kebab> in <n> ms",
    "cache miss for <kebab>",
    "connected to <kebab>",
    "queue <kebab> has <n> entries",
    "user <word> logged in",
    "wrote <n> rows to <snake>",
    "skipping <snake>: nothing to do",
)

#: Subjects of commits.
SUBJECTS = (
    "Fix <word> of <snake>",
    "Add <word> to <camel>",
    "Remove unused <word>",
    "Rename <snake> to <snake>",
    "Bump <kebab> to <version>",
    "Handle empty <word> in <snake>",
    "docs: explain <word>",
    "fix(<word>): <word> <word>",
    "feat: <word> for <camel>",
    "refactor <snake>",
    "test: cover <snake>",
    "Speed up <word> <word>",
    "Merge branch '<kebab>'",
    "Revert <snake>",
)

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


_TYPES = tuple(EXCEPTIONS)


def exception(names: Names) -> tuple[str, str]:
    """A Python exception's type and message."""
    rng = names.rng
    if rng.random() < 0.25:
        return names.camel() + "Error", failure(names)
    kind = rng.choice(_TYPES)
    return kind, compose(names, rng.choice(EXCEPTIONS[kind]))


def log_message(names: Names) -> str:
    """The message of one line of a log."""
    return compose(names, names.rng.choice(LOG))


def times(names: Names) -> Iterator[str]:
    """Yield times of day, each a little after the one before, going on from midnight."""
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
    return compose(names, names.rng.choice(OWN_EXCEPTION))


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
    return compose(names, names.rng.choice(SUBJECTS))
