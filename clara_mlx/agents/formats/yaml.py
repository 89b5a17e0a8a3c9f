"""YAML, edited by splicing lines at the places that PyYAML's reader gives."""

from __future__ import annotations

import json
from typing import Any

import yaml

from clara_mlx.agents.formats.format import ITEM, MARK, Path, Splice, Unreadable, newline_of, plain


class YamlFormat:
    """YAML in lines. What is written in braces can be replaced as a whole, not added to."""

    def parse(self, text: str) -> Any:
        """See `Format.parse`."""
        try:
            data = yaml.load(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise Unreadable(" ".join(str(error).split())) from error
        return {} if data is None else plain(data)

    def set(self, text: str, path: Path, value: Any) -> Splice:
        """See `Format.set`."""
        newline = newline_of(text)
        root = _compose(text)
        if root is None:  # nothing but comments
            lead = newline if text and not text.endswith("\n") else ""
            return Splice(len(text), "", lead + _lines(path, value, "", newline))
        node, place = root, None
        for number, step in enumerate(path):
            if place and _is_empty(node):  # `key:` with nothing, or [] or {}
                return _fill(text, place, path, number, value, newline)
            if not isinstance(node, yaml.SequenceNode if step == ITEM else yaml.MappingNode):
                named = ".".join(path[:number]) or "the file"
                kind = "a list" if step == ITEM else "an object"
                raise Unreadable(f"{named} is not {kind}, so that {'.'.join(path)} can't be set")
            found = None if step == ITEM else _pair(node, step)
            if found is None:
                return _insert(text, node, path[number:], value, newline)
            place, node = found, found[1]
        assert place is not None  # a path has a step
        key, _ = place
        indent = " " * key.start_mark.column
        new = _lines((path[-1],), value, indent, newline).rstrip("\r\n").lstrip(" ")
        start, end = key.start_mark.index, _end(text, key, node)
        return Splice(start, text[start:end], new)

    def drop(self, text: str, path: Path, value: Any) -> Splice:
        """See `Format.drop`."""
        start, end = _span(text, path, value)
        line = text.rfind("\n", 0, start) + 1
        rest = text.find("\n", end)
        after = len(text) if rest < 0 else rest + 1
        tail = text[end:after].strip()
        if text[line:start].strip(" -") or (tail and not tail.startswith("#")):
            raise Unreadable(f"{'.'.join(path)} shares its line with others")
        return Splice(line, text[line:after], "")

    def restore(self, text: str, path: Path, old: str) -> Splice:
        """See `Format.restore`."""
        start, end = _span(text, path, None)
        if text.startswith(f"  {MARK}", end):
            end += len(MARK) + 2
        return Splice(start, text[start:end], old)


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(" ".join(str(error).split())) from error


def _pair(node: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = [(k, v) for k, v in node.value if isinstance(k, yaml.ScalarNode) and k.value == key]
    if not pairs:
        return None
    if pairs[-1][1].start_mark.index < pairs[-1][0].start_mark.index:
        raise Unreadable(f"{key} is an alias of another place, which is not changed")
    return pairs[-1]


def _is_empty(node: yaml.Node) -> bool:
    if isinstance(node, yaml.ScalarNode):
        return node.tag == "tag:yaml.org,2002:null"
    return not node.value


def _span(text: str, path: Path, value: Any) -> tuple[int, int]:
    """Start and end of a setting that is there: of its key and value, or of its item."""
    node = _compose(text)
    start = 0
    key: yaml.Node | None = None
    for step in path:
        assert node is not None  # the caller has looked
        if step == ITEM:
            loader = yaml.SafeLoader("")
            at = next(
                one for one in node.value if plain(loader.construct_object(one, True)) == value
            )
            start, key, node = at.start_mark.index, None, at
        else:
            found = _pair(node, step)
            assert found is not None  # the caller has looked
            key, node = found
            start = key.start_mark.index
    assert node is not None
    return start, _end(text, key, node)


def _end(text: str, key: yaml.Node | None, node: yaml.Node) -> int:
    """The end of a value. That of a block is said to be where the next token begins."""
    if isinstance(node, yaml.ScalarNode):
        if key is not None and node.start_mark.index == node.end_mark.index:  # nothing
            return text.index(":", key.end_mark.index) + 1
        end = node.end_mark.index
        return len(text[:end].rstrip()) if node.style in ("|", ">") else int(end)
    if node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(text, *last) if isinstance(last, tuple) else _end(text, None, last)


def _fill(
    text: str,
    place: tuple[yaml.Node, yaml.Node],
    path: Path,
    number: int,
    value: Any,
    newline: str,
) -> Splice:
    """The change that gives an empty setting its first member."""
    key, node = place
    indent = " " * key.start_mark.column
    for step in reversed(path[number:]):
        value = [value] if step == ITEM else {step: value}
    new = _lines((path[number - 1],), value, indent, newline).rstrip("\r\n").lstrip(" ")
    start, end = key.start_mark.index, _end(text, key, node)
    return Splice(start, text[start:end], new)


def _insert(text: str, parent: yaml.Node, path: Path, value: Any, newline: str) -> Splice:
    """The change that adds a first member to a mapping, or a first item to a list."""
    if parent.flow_style:
        step, *rest = path
        for missing in reversed(rest):
            value = [value] if missing == ITEM else {missing: value}
        head = "" if step == ITEM else json.dumps(step, ensure_ascii=False) + ": "
        start = parent.start_mark.index + 1
        return Splice(start, "", f"{head}{json.dumps(value, ensure_ascii=False)}, ")
    first = parent.value[0]
    mark = (first[0] if isinstance(first, tuple) else first).start_mark
    line = text.rfind("\n", 0, mark.index) + 1
    if path[0] == ITEM:
        column = text.rfind("-", line, mark.index) - line
        if column < 0 or text[line : line + column].strip():
            raise Unreadable("a list begins in a line with other things")
    else:
        column = mark.index - line
        if text[line : mark.index].strip():
            raise Unreadable("an object begins in a line with other things")
    return Splice(line, "", _lines(path, value, " " * column, newline))


def _lines(path: Path, value: Any, indent: str, newline: str) -> str:
    """A setting in lines of its own, marked as ours."""
    for step in reversed(path):
        value = [value] if step == ITEM else {step: value}
    dumped = yaml.dump(
        value, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=10_000
    )
    first, *rest = dumped.rstrip("\n").split("\n")
    return "".join(f"{indent}{line}{newline}" for line in (f"{first}  {MARK}", *rest))
