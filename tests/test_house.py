"""The house keeps its shape: imports point down, packages are listed, torch stays out."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

# From the ground up; a module imports only from floors below its own, or from its own package.
FLOORS = (
    {"errors", "version"},
    {"config", "tokenizer", "machine", "results", "scheduler", "footprint", "reasoners", "outputs"},
    {"store"},
    {"prompts", "chunking", "lora", "encoder", "checkpoint"},
    {"decoder", "shapes"},
    {"model"},
    {"convert", "benchmark", "compressor", "asking", "plan"},
    {"memory", "plan_inputs"},
    {"context", "evaluate"},
    {"compymac", "serve", "train"},
    {"cli_output"},
    {"cli_options"},
    {"cli_memory", "cli_care", "cli_plan", "cli_train", "cli_evaluate", "cli_serve"},
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def sources() -> Iterator[tuple[str, Path]]:
    """Room and file of every module; the symlinked convert is read where it lives."""
    for file in sorted((ROOT / "clara_mlx").glob("*.py")):
        yield file.stem, file
    rooms = (init.parent for init in (ROOT / "clara_mlx").glob("*/__init__.py"))
    for room in (ROOT / "convert", *(room for room in rooms if not room.is_symlink())):
        for file in sorted(room.rglob("*.py")):
            yield room.name, file


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def test_imports_point_down() -> None:
    wrong = []
    for room, file in sources():
        if room == "__init__":
            continue
        for name in imports(file):
            parts = name.split(".")
            if parts[0] == "clara_mlx" and len(parts) > 1:
                used = parts[1] if parts[1] in FLOOR else "model"  # clara_mlx.load and the like
                if used != room and FLOOR[used] >= FLOOR[room]:
                    wrong.append(f"{file.name} ({room}) imports {name}")
    assert not wrong


def test_no_torch_and_no_pickle() -> None:
    for _, file in sources():
        roots = {name.split(".")[0] for name in imports(file)}
        assert not roots & {"torch", "pickle"}, file


def test_packages_are_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    found = {"clara_mlx"} | {
        ".".join(init.parent.relative_to(ROOT).parts)
        for init in (ROOT / "clara_mlx").rglob("__init__.py")
    }
    found = {"clara_mlx.convert" if package == "convert" else package for package in found}
    assert set(setuptools["packages"]) == found | {"clara_mlx.convert"}
    for package, folder in setuptools["package-dir"].items():
        assert (ROOT / folder / "__init__.py").is_file(), package
    assert (ROOT / "clara_mlx/convert").resolve() == ROOT / "convert"


def test_files_stay_small() -> None:
    for _, file in sources():
        assert len(file.read_text().splitlines()) <= 400, file
    assert not list(ROOT.glob("*/utils.py"))
