"""TOML, edited by splicing lines; Python's own reader says whether a text is TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

from clara_mlx.agents.formats.format import MARK, Path, Splice, Unreadable, newline_of, plain


class TomlFormat:
    """TOML. Settings are single values at the top, or whole tables of their own at the end."""

    def parse(self, text: str) -> Any:
        """See `Format.parse`."""
        try:
            return plain(tomllib.loads(text.replace("\r\n", "\n")))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise Unreadable(str(error)) from error

    def set(self, text: str, path: Path, value: Any) -> Splice:
        """See `Format.set`."""
        newline = newline_of(text)
        found = _place(text, path)
        if isinstance(value, dict):
            table = newline.join(_table(path, value))
            if found:
                start, end = found
                return Splice(start, text[start:end], table + newline)
            before = "" if not text else newline if text.endswith("\n") else newline * 2
            return Splice(len(text), "", before + table + newline)
        if len(path) > 1:
            raise Unreadable(f"{'.'.join(path)} can't be set alone, only with its whole table")
        line = f"{_key(path[0])} = {_literal(value)}  {MARK}"
        if found:
            start, end = found
            return Splice(start, text[start:end], line)
        return Splice(0, "", line + newline)

    def drop(self, text: str, path: Path, value: Any) -> Splice:
        """See `Format.drop`."""
        found = _place(text, path)
        if found is None:
            raise Unreadable(f"{'.'.join(path)} is written in a way that can't be taken out")
        start, end = found
        if len(path) == 1 and not isinstance(value, dict):
            rest = text.find("\n", end)
            end = len(text) if rest < 0 else rest + 1
        return Splice(start, text[start:end], "")

    def restore(self, text: str, path: Path, old: str) -> Splice:
        """See `Format.restore`."""
        found = _place(text, path)
        if found is None:
            raise Unreadable(f"{'.'.join(path)} is written in a way that can't be taken out")
        start, end = found
        return Splice(start, text[start:end], old)


def _place(text: str, path: Path) -> tuple[int, int] | None:
    """Start and end of a top statement, or of a table with all its lines."""
    header = _header(path)
    table: int | None = None
    for start, end, statement in _statements(text):
        bare = statement.strip()
        if bare.startswith("["):
            if table is not None:
                return table, start
            if bare.partition("]")[0] + "]" == header:
                table = start
        elif table is None and len(path) == 1 and list(_read(statement)) == [path[0]]:
            return start, end
    return None if table is None else (table, len(text))


def _statements(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and text of each statement up to the first table, then of each table's header."""
    start = at = 0
    in_table = False
    for whole in text.split("\n"):
        at += len(whole) + 1
        end = start + len(text[start : at - 1].rstrip("\r"))
        statement = text[start:end]
        if not statement.strip() or statement.lstrip().startswith("#"):
            start = at
            continue
        if statement.lstrip().startswith("[") and _is_complete(statement):
            in_table = True
            yield start, end, statement
        elif _is_complete(statement):
            if not in_table:
                yield start, end, statement
        else:  # it goes on in the next line
            continue
        start = at


def _is_complete(statement: str) -> bool:
    try:
        tomllib.loads(statement.replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return True


def _read(statement: str) -> dict[str, Any]:
    return tomllib.loads(statement.replace("\r\n", "\n"))


def _header(path: Path) -> str:
    return f"[{'.'.join(map(_key, path))}]"


def _table(path: Path, value: dict[str, Any]) -> list[str]:
    lines = [f"{_header(path)}  {MARK}"]
    lines += [f"{_key(key)} = {_literal(each)}" for key, each in value.items()]
    return lines


def _key(key: str) -> str:
    is_bare = key.replace("_", "").replace("-", "").isalnum() and key.isascii()
    return key if is_bare else json.dumps(key)


def _literal(value: Any) -> str:
    """A value as TOML; strings, numbers, lists and inline tables look as in JSON, or nearly so."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_literal(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
