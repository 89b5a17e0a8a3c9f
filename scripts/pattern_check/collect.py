"""Finds every regular expression of the source, and how it is used.

Patterns that are compiled when a module is imported are read from the module, also those in tables;
the first arguments of calls inside functions are evaluated among the module's names. What can't be
read is an error, so that no pattern slips past.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]

# Where patterns may be. The symlink clara_mlx/convert shows the files of convert/.
FOLDERS = ("clara_mlx", "convert", "bench", "scripts")

# Folders whose files import each other by their bare names.
IMPORTED_BARE = ("scripts", "scripts/nano", "bench", "bench/capture", "tests/support")

# How the functions of `re` use a pattern: at one place, or in search of it; "scan" goes through the
# whole text, match after match.
USES = {
    "match": "match",
    "fullmatch": "fullmatch",
    "search": "search",
    **dict.fromkeys(("finditer", "findall", "split", "sub", "subn"), "scan"),
}

# What stands for an escaped text in a pattern that is made when it is used.
ESCAPED = "Name"


class Unreadable(Exception):
    """A pattern that can't be read from the source."""


@dataclass(frozen=True, order=True)
class Pattern:
    """A regular expression, and one way in which the source uses it."""

    text: str
    flags: int
    use: str

    def __str__(self) -> str:
        return f"{self.text!r} {re.RegexFlag(self.flags)!r} ({self.use})"


@dataclass
class Source:
    """A file of the source, parsed."""

    path: Path
    name: str
    tree: ast.Module
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)
    loads: dict[str, list[ast.AST]] = field(default_factory=dict)
    imported: set[tuple[str | None, str]] = field(default_factory=set)
    functions: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Source:
        """Parse a file, and note where names are used and how its functions use patterns."""
        tree = ast.parse(path.read_text(encoding="utf-8"))
        source = cls(path, _module_name(path), tree)
        for node in ast.walk(tree):
            source.parents.update((child, node) for child in ast.iter_child_nodes(node))
            name = getattr(node, "id", None) or getattr(node, "attr", None)
            if name and isinstance(getattr(node, "ctx", None), ast.Load):
                source.loads.setdefault(name, []).append(node)
            elif isinstance(node, ast.ImportFrom):
                source.imported.update((node.module, alias.name) for alias in node.names)
            elif isinstance(node, ast.FunctionDef) and "re.Pattern" in ast.unparse(node.args):
                source.functions.setdefault(node.name, set()).update(_uses_in(node))
        return source

    def load(self) -> ModuleType:
        """Import it as a module; bench and scripts by their paths."""
        if sys.path[0] != str(ROOT):
            sys.path.insert(0, str(ROOT))
        if self.name.startswith("clara_mlx"):
            module = importlib.import_module(self.name)
            if Path(str(module.__file__)).resolve() != self.path.resolve():
                raise Unreadable(f"{self.path}: Python imports {module.__file__} in its place")
            return module
        for folder in IMPORTED_BARE:
            if str(ROOT / folder) not in sys.path:
                sys.path.append(str(ROOT / folder))
        name = f"pattern_source_{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look themselves up
        spec.loader.exec_module(module)
        return module

    def function_around(self, node: ast.AST) -> ast.AST | None:
        """The innermost function that a node is in."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                return node
        return None

    def statement_of(self, node: ast.AST) -> ast.AST:
        """The statement of the module that a node is in."""
        while not isinstance(self.parents[node], ast.Module):
            node = self.parents[node]
        return node

    def place(self, node: ast.AST) -> str:
        """File and line, for a message."""
        shown = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{shown}:{getattr(node, 'lineno', '?')}"


def source_files() -> list[Path]:
    """Every Python file that may have a pattern."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    # One is a link to convert/, the other compiles what it checks.
    passed_over = {ROOT / "clara_mlx" / "convert", Path(__file__).parent}
    return sorted(path for path in found if not passed_over & set(path.parents))


def collect(paths: Iterable[Path] | None = None) -> dict[Pattern, list[str]]:
    """Every pattern with the places, ``file:line``, where it is compiled or used.

    Args:
        paths: Files whose patterns are wanted; by default all. How they are used is looked up in
            all files in any case.

    Raises:
        Unreadable: A pattern can't be read, or the source uses another module than `re`.
    """
    sources = [Source.read(path) for path in source_files()]
    wanted = {path.resolve() for path in paths} if paths is not None else None
    known = {source.path.resolve() for source in sources}
    sources += [Source.read(path) for path in sorted((wanted or set()) - known)]
    found: dict[Pattern, list[str]] = {}
    for source in sources:
        if wanted is None or source.path.resolve() in wanted:
            for pattern, place in _patterns_of(source, sources):
                found.setdefault(pattern, []).append(place)
    return found


def _module_name(path: Path) -> str:
    if not path.is_relative_to(ROOT):
        return path.stem
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts).removesuffix(".__init__")
    return f"clara_mlx.{name}" if parts[0] == "convert" else name


def _patterns_of(source: Source, sources: list[Source]) -> Iterator[tuple[Pattern, str]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "re":
            raise Unreadable(f"{source.place(node)}: import re as a whole, so that it can be seen")
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if {"regex", "re2", "pyre2"} & set(names):
            raise Unreadable(f"{source.place(node)}: only patterns of re can be checked")
    calls = [node for node in ast.walk(source.tree) if _function_of_re(node)]
    if not calls:
        return
    module = source.load()
    read: set[str] = set()
    for call in calls:
        assert isinstance(call, ast.Call)
        function = _function_of_re(call)
        if function in USES:
            pattern, flags = _arguments(call, source, module)
            yield Pattern(pattern, flags, USES[function]), source.place(call)
        elif source.function_around(call):
            pattern, flags = _arguments(call, source, module)
            for use in _uses_around(call, source, sources):
                yield Pattern(pattern, flags, use), source.place(call)
        else:
            statement = source.statement_of(call)
            for name in _names_assigned(statement):
                if name in read:
                    continue
                read.add(name)
                compiled = list(_compiled_in(vars(module)[name], set()))
                if not compiled:
                    raise Unreadable(f"{source.place(call)}: no pattern is found in {name}")
                uses = _uses_of(name, source, sources, frozenset()) or {"search"}
                for one, method in compiled:
                    for use in sorted(uses) if method is None else [USES[method]]:
                        yield _as_pattern(one, use), source.place(statement)
            if not _names_assigned(statement):
                raise Unreadable(f"{source.place(call)}: give the pattern a name of the module")


def _function_of_re(node: ast.AST) -> str:
    """The name of the function of `re` that a call is of; empty for anything else."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and (node.func.attr in USES or node.func.attr == "compile")
    ):
        return node.func.attr
    return ""


def _arguments(call: ast.Call, source: Source, module: ModuleType) -> tuple[str, int]:
    """The pattern and the flags of a call."""
    names = {keyword.arg: keyword.value for keyword in call.keywords}
    first = call.args[0] if call.args else names["pattern"]
    position = {"compile": 1, "split": 3, "sub": 4, "subn": 4}.get(_function_of_re(call), 2)
    given = call.args[position] if len(call.args) > position else names.get("flags")
    flags = _evaluate(given, source, module) if given else 0
    text = _evaluate(first, source, module)
    compiled = re.compile(text, flags)
    return compiled.pattern, compiled.flags


def _evaluate(node: ast.expr, source: Source, module: ModuleType) -> Any:
    """The value of an expression, with a stand-in for each text that is escaped."""
    plain = _StandIn().visit(ast.parse(ast.unparse(node), mode="eval"))
    try:
        return eval(compile(ast.fix_missing_locations(plain), "", "eval"), vars(module))
    except Exception as error:
        raise Unreadable(
            f"{source.place(node)}: can't read {ast.unparse(node)} ({error}): make the pattern of "
            "constants of the module, and of re.escape(...) for what is put into it"
        ) from None


class _StandIn(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Put a name in place of ``re.escape(...)``, two in place of ``map(re.escape, ...)``."""
        function = ast.unparse(node.func)
        if function == "re.escape":
            return ast.Constant(ESCAPED)
        if function == "map" and ast.unparse(node.args[0]) == "re.escape":
            return ast.List([ast.Constant(ESCAPED), ast.Constant(ESCAPED[::-1])], ast.Load())
        return self.generic_visit(node)


def _names_assigned(statement: ast.AST) -> list[str]:
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


def _compiled_in(value: Any, seen: set[int]) -> Iterator[tuple[re.Pattern[str], str | None]]:
    """The compiled patterns in a value: itself, or in tables, objects and closures.

    If it holds a method of a pattern, such as its ``search``, that is named as well.
    """
    if isinstance(value, re.Pattern):
        yield value, None
        return
    if isinstance(getattr(value, "__self__", None), re.Pattern):
        yield value.__self__, value.__name__
        return
    if id(value) in seen or isinstance(value, str | bytes | int | float | type | ModuleType):
        return
    seen.add(id(value))
    inside: Iterable[Any] = ()
    if isinstance(value, dict):
        inside = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inside = value
    elif getattr(value, "__closure__", None):
        inside = [cell.cell_contents for cell in value.__closure__]
    elif hasattr(value, "__dataclass_fields__"):
        inside = [getattr(value, name) for name in value.__dataclass_fields__]
    for one in inside:
        yield from _compiled_in(one, seen)


def _as_pattern(compiled: re.Pattern[str], use: str) -> Pattern:
    text = compiled.pattern
    return Pattern(text if isinstance(text, str) else text.decode("latin-1"), compiled.flags, use)


def _uses_of(name: str, home: Source, sources: list[Source], seen: frozenset[str]) -> set[str]:
    """How a name of a module that holds patterns is used, in it and where it is imported."""
    if name in seen:
        return set()
    module, _, last = home.name.rpartition(".")
    return {
        use
        for source in sources
        if source is home or {(home.name, name), (module, last)} & source.imported
        for node in source.loads.get(name, ())
        for use in _uses_around(node, source, sources, seen | {name})
    }


def _uses_around(
    node: ast.AST, source: Source, sources: list[Source], seen: frozenset[str] = frozenset()
) -> set[str]:
    """How a pattern, or a table of patterns, is used at the place where it is named."""
    parent = source.parents[node]
    if isinstance(parent, ast.Attribute):
        # `NAME.pattern` is part of another pattern, which is looked at itself.
        return {USES[parent.attr]} if parent.attr in USES else set()
    while not isinstance(parent, ast.stmt | ast.Call | ast.comprehension | ast.Lambda):
        node, parent = parent, source.parents[parent]
    if isinstance(parent, ast.Call) and node is not parent.func:
        name = _name_called(parent)
        used = {use for each in sources for use in each.functions.get(name, ())}
        if used:
            return used
    around = source.function_around(node)
    if around is not None:
        called = {name for name in map(_name_called, ast.walk(around)) if name}
        handed = {
            use for name in called for each in sources for use in each.functions.get(name, ())
        }
        return _uses_in(around) | handed or {"search"}
    names = _names_assigned(source.statement_of(node))
    return {use for name in names for use in _uses_of(name, source, sources, seen)}


def _name_called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    called = node.func
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _uses_in(function: ast.AST) -> set[str]:
    return {
        USES[node.func.attr]
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in USES
        and node.func.attr != "split"  # most are of a str
        # A pattern with a name of its own is looked at itself.
        and not (
            isinstance(node.func.value, ast.Name)
            and node.func.value.id.upper() == node.func.value.id
        )
    }
