"""Files of NAME=value lines, such as ``.env``."""

from __future__ import annotations

import shlex
from typing import Any

from clara_mlx.agents.formats.format import Path, Splice, Unreadable, newline_of


class EnvFormat:
    """Lines of NAME=value, with ``export`` or without; all others are left alone."""

    def parse(self, text: str) -> Any:
        """See `Format.parse`."""
        return {name: value for name, value, _, _ in _lines(text)}

    def set(self, text: str, path: Path, value: Any) -> Splice:
        """See `Format.set`."""
        (name,) = path
        # Shells that read such a file pass on only what is exported.
        line = f"export {name}={shlex.quote(str(value))}"
        found = _place(text, name)
        if found:
            start, end = found
            return Splice(start, text[start:end], line)
        newline = newline_of(text)
        if text and not text.endswith("\n"):
            return Splice(len(text), "", newline + line)
        return Splice(len(text), "", line + newline)

    def drop(self, text: str, path: Path, value: Any) -> Splice:
        """See `Format.drop`."""
        found = _place(text, path[0])
        assert found is not None  # the caller has looked
        start, end = found
        rest = text.find("\n", end)
        end = len(text) if rest < 0 else rest + 1
        return Splice(start, text[start:end], "")

    def restore(self, text: str, path: Path, old: str) -> Splice:
        """See `Format.restore`."""
        found = _place(text, path[0])
        assert found is not None  # the caller has looked
        start, end = found
        return Splice(start, text[start:end], old)


def _place(text: str, name: str) -> tuple[int, int] | None:
    """Start and end of the line that counts for a name: the last."""
    places = [(start, end) for each, _, start, end in _lines(text) if each == name]
    return places[-1] if places else None


def _lines(text: str) -> list[tuple[str, str, int, int]]:
    """Name, value, start and end of each line with a name."""
    found = []
    start = 0
    for number, whole in enumerate(text.split("\n"), 1):
        line = whole.rstrip("\r")
        body = line.strip()
        if body and not body.startswith("#"):
            name, equals, value = body.removeprefix("export ").partition("=")
            value = value.strip()
            quote = value[:1]
            if equals and quote in ("'", '"') and quote not in value[1:]:
                raise Unreadable(f"line {number}: a value goes on over several lines")
            if equals:
                found.append((name.strip(), _unquote(value), start, start + len(line)))
        start += len(whole) + 1
    return found


def _unquote(value: str) -> str:
    try:
        parts = shlex.split(value, comments=True)
    except ValueError:
        return value
    return " ".join(parts)
