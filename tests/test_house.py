"""The house keeps its shape: scripts/house.py has its plan, docs/ARCHITECTURE.md the tour."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

from house import (
    FLOOR,
    PAGE,
    ROOT,
    circles,
    imports,
    modules,
    page_with_drawing,
    room_graph,
    room_of,
)


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def defined_names(node: ast.stmt) -> set[str]:
    """What a statement of a module or a class defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_room_has_its_floor() -> None:
    assert {room_of(name) for name, _ in modules()} == {"", *FLOOR}


def test_imports_point_down() -> None:
    wrong = [
        f"{room} imports from {below}"
        for room, used in room_graph().items()
        for below in used
        if FLOOR[below] >= FLOOR[room]
    ]
    assert not wrong


def test_no_import_goes_in_a_circle() -> None:
    """Not even one for types, or one inside a function."""
    assert not circles()


def test_no_torch_and_no_pickle() -> None:
    for _, file in modules():
        roots = {name.split(".")[0] for name in imports(file)}
        assert not roots & {"torch", "pickle"}, file


def modules_after(code: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after some code."""
    code += "; import sys; print(chr(10).join(['loaded', *sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("loaded\n")[2].split())


def test_help_is_shown_without_mlx() -> None:
    loaded = modules_after(
        "import sys, contextlib; sys.argv = ['clara-mlx', '--help']\n"
        "from clara_mlx.cli.app import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "pass"
    )
    assert "clara_mlx.cli.app" in loaded
    assert not loaded & {"mlx.core", "mlx_lm", "transformers", "starlette", "matplotlib"}


def test_importing_the_context_brings_in_nothing_from_above() -> None:
    loaded = modules_after("import clara_mlx.context")
    above = {name for name in loaded if FLOOR.get(room_of(name), 0) > FLOOR["context"]}
    assert not above
    assert not {name for name in loaded if room_of(name) in {"evaluate", "train"}}
    assert "mlx.core" not in loaded


def test_packages_are_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    setuptools = project["tool"]["setuptools"]
    found = {name for name, file in modules() if file.name == "__init__.py"}
    assert set(setuptools["packages"]) == found
    assert setuptools["package-dir"] == {"": "."}  # with any other, type checkers don't find it
    assert (ROOT / "clara_mlx/convert").resolve() == ROOT / "convert"
    data = {
        file
        for file in (ROOT / "clara_mlx").rglob("*.*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    listed = [
        ((ROOT / package.replace(".", "/")).glob(name), f"{package}: {name}")
        for package, names in setuptools["package-data"].items()
        for name in names
    ]
    found_by = {name: set(files) for files, name in listed}
    assert all(found_by.values()), found_by
    # The model of the demo lies behind a link.
    assert data <= set().union(*found_by.values())


def test_the_ground_floor_has_four_files() -> None:
    files = {file.stem for file in (ROOT / "clara_mlx").glob("*.py")}
    assert files == {"__init__", "errors", "machine", "version"}


def test_files_stay_small() -> None:
    for _, file in modules():
        assert len(file.read_text().splitlines()) <= 400, file
        assert file.name != "utils.py"


def test_the_picture_is_of_today() -> None:
    assert page() == page_with_drawing(page()), "run: python scripts/house.py --write"


def test_the_walks_lead_to_code() -> None:
    """Each `room/file.py:Name` on the page is there."""
    for path, name in re.findall(r"`((?:\w+/)+\w+\.\w+)(?::([\w.]+))?`", page()):
        places = [
            folder / path for folder in (ROOT, ROOT / "clara_mlx") if (folder / path).exists()
        ]
        assert places, path
        body = ast.parse(places[0].read_text()).body if name else []
        for part in name.split(".") if name else ():
            found = [node for node in body if part in defined_names(node)]
            assert found, f"{path}:{name}"
            body = getattr(found[0], "body", [])


def test_each_promise_has_its_test() -> None:
    """Each `tests/room/test_file.py::name` in docs/SECURITY.md is there, and each row has one."""
    text = (ROOT / "docs/SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 30
    for file, name in named:
        assert name in {
            found
            for node in ast.parse((ROOT / file).read_text()).body
            for found in defined_names(node)
        }, f"{file}::{name}"
    promises = text.partition("## What is promised")[2]
    for row in re.findall(r"^\| (?!promise|---)(.+) \|$", promises, re.MULTILINE):
        assert "`tests/" in row, row


def test_each_word_of_the_glossary_is_in_the_code() -> None:
    code = " ".join(file.read_text().lower() for _, file in modules())
    glossary = page().partition("## The words")[2].partition("\n## ")[0]
    words = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", glossary, re.MULTILINE)
    assert len(words) > 50
    for word in (word for row in words for word in row.split(", ") if word not in ("word", "---")):
        spaced = word.replace(" ", r"[\s_]+")
        assert re.search(rf"(?<![a-z]){spaced}(?:s|es|ed|ing)?(?![a-z])", code), word


def test_no_private_member_crosses_a_file() -> None:
    """Ruff's SLF looks at attributes; this looks at imports, too, and at what a file defines."""
    wrong = []
    for name, file in modules():
        nodes = list(ast.walk(ast.parse(file.read_text())))
        own = {node.name for node in nodes if hasattr(node, "name")}
        own |= {node.id for node in nodes if isinstance(node, ast.Name)}
        own |= {
            node.attr
            for node in nodes
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("self", "cls")
        }
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)} - own
        used |= {name.rpartition(".")[2] for name in imports(file) if name.startswith("clara_mlx.")}
        wrong += [f"{name}: {each}" for each in used if re.match(r"_[^_]", each)]
    assert not wrong
