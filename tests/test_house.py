"""The house keeps its shape: imports point down and never in a circle, packages are listed."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from golden_files import ROOT

# From the ground up; a room imports only from floors below its own, or from itself.
FLOORS = (
    {"errors", "version", "machine"},
    {"tool_outputs"},
    {"model", "store"},
    {"convert", "plan"},
    {"memory"},
    {"context", "evaluate"},
    {"serve", "compymac", "train"},
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> Iterator[tuple[str, Path]]:
    """Name and file of every module; the symlinked convert is read where it lives."""
    for file in sorted((ROOT / "clara_mlx").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[1] != "convert":
            yield ".".join(parts).removesuffix(".__init__"), file
    for file in sorted((ROOT / "convert").glob("*.py")):
        yield f"clara_mlx.convert.{file.stem}".removesuffix(".__init__"), file


def room_of(module: str) -> str:
    """The folder, or the file of the ground floor, that a module is in; empty: the package."""
    return module.split(".")[1] if "." in module else ""


def imports(file: Path) -> Iterator[str]:
    """What a file imports, also for types only and inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def test_the_rooms_are_the_floors() -> None:
    assert {room_of(name) for name, _ in modules()} == {"", *FLOOR}


def test_imports_point_down() -> None:
    wrong = []
    for name, file in modules():
        room = room_of(name)
        for used in imports(file):
            if room and used.startswith("clara_mlx."):
                # clara_mlx.load and the like are the model's or the memory's.
                other = room_of(used) if room_of(used) in FLOOR else "memory"
                if other != room and FLOOR[other] >= FLOOR[room]:
                    wrong.append(f"{name} imports {used}")
    assert not wrong


def test_no_import_goes_in_a_circle() -> None:
    """Not even one for types, or one inside a function."""
    known = dict(modules())
    graph: dict[str, set[str]] = {}
    for name, file in known.items():
        if name != "clara_mlx":  # which names everybody's home, and imports it when asked
            used = {u if u in known else u.rpartition(".")[0] for u in imports(file)}
            graph[name] = {u for u in used if u in known and u != name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_torch_and_no_pickle() -> None:
    for _, file in modules():
        roots = {name.split(".")[0] for name in imports(file)}
        assert not roots & {"torch", "pickle"}, file


def test_packages_are_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    found = {name for name, file in modules() if file.name == "__init__.py"}
    assert set(setuptools["packages"]) == found
    for package, folder in setuptools["package-dir"].items():
        assert (ROOT / folder / "__init__.py").is_file(), package
    assert (ROOT / "clara_mlx/convert").resolve() == ROOT / "convert"


def test_the_ground_floor_has_four_files() -> None:
    assert {file.stem for file in (ROOT / "clara_mlx").glob("*.py")} == {
        *("__init__", "errors", "machine", "version")
    }


def test_files_stay_small() -> None:
    for _, file in modules():
        assert len(file.read_text().splitlines()) <= 400, file
    assert not list(ROOT.glob("*/**/utils.py"))
