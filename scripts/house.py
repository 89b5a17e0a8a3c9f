"""The plan of the house, read from its imports: tests hold it, docs/ARCHITECTURE.md shows it.

python scripts/house.py           # the picture and the table of rooms
python scripts/house.py --write   # put them into docs/ARCHITECTURE.md
python scripts/house.py --sizes   # files and lines of each room
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- drawn by scripts/house.py -->", "<!-- end of the drawing -->"

# From the ground up; a room imports only from floors below its own, or from itself.
FLOORS = (
    ("errors", "version", "machine"),
    ("tool_outputs",),
    ("model", "store"),
    ("compressors",),
    ("convert", "plan"),
    ("memory",),
    ("context", "evaluate", "agents"),
    ("serve", "compymac", "train"),
    ("demo", "speed"),
    ("cli",),
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
    """The folder, or the file of the ground floor, that a module is in; empty for the package."""
    name = module.split(".")[1] if "." in module else ""
    # `from clara_mlx import load` and the like: the package leads to the model and the memory.
    return name if name in FLOOR or not name else "memory"


def imports(file: Path) -> Iterator[str]:
    """The dotted names that a file imports, also for types only and inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def module_graph() -> dict[str, set[str]]:
    """For each module, the modules of this package that it imports."""
    known = dict(modules())
    graph: dict[str, set[str]] = {}
    for name, file in known.items():
        if name != "clara_mlx":  # which names everybody's home, and imports it when asked
            used = {each if each in known else each.rpartition(".")[0] for each in imports(file)}
            graph[name] = {each for each in used if each in known and each != name}
    return graph


def room_graph() -> dict[str, set[str]]:
    """For each room, the rooms below that it imports from."""
    graph: dict[str, set[str]] = {room: set() for room in FLOOR}
    for name, file in modules():
        for used in imports(file):
            if used.startswith("clara_mlx.") and room_of(name):
                graph[room_of(name)].add(room_of(used))
    return {room: used - {room, ""} for room, used in graph.items()}


def circles() -> list[str]:
    """The first circle of imports, if there is one."""
    try:
        TopologicalSorter(module_graph()).prepare()
    except ValueError as error:
        return list(error.args[1])
    return []


def drawing() -> str:
    """A Mermaid picture and a table of the rooms, with the arrows that the imports have today."""
    graph = room_graph()
    lines = ["```mermaid", "flowchart TD"]
    for number in reversed(range(1, len(FLOORS))):
        lines.append(f'    subgraph floor{number}[" "]')
        lines += [f'        {room}["{room}/"]' for room in FLOORS[number]]
        lines.append("    end")
    for room, used in graph.items():
        lines += [f"    {room} --> {below}" for below in sorted(_next_below(used, graph))]
    lines += ["```", "", "| room | what it is for | imports from |", "|---|---|---|"]
    about = {room_of(name): file for name, file in modules() if name.count(".") == 1}
    for room in (room for floor in reversed(FLOORS) for room in floor):
        docstring = ast.get_docstring(ast.parse(about[room].read_text(encoding="utf-8"))) or ""
        purpose = " ".join(docstring.partition("\n\n")[0].split())
        below = sorted(graph[room], key=lambda each: (-FLOOR[each], each))
        name = f"{room}.py" if room in FLOORS[0] else f"{room}/"
        lines.append(f"| `{name}` | {purpose} | {', '.join(below) or 'nothing'} |")
    return "\n".join(lines)


def sizes() -> str:
    """Files and lines of each room, and of the product."""
    files, lines = Counter[str](), Counter[str]()
    for name, file in modules():
        files[room_of(name)] += 1
        lines[room_of(name)] += len(file.read_text(encoding="utf-8").splitlines())
    rows = [f"{room:14}{files[room]:4}{lines[room]:7}" for room in sorted(files)]
    return "\n".join([*rows, f"{'product':14}{files.total():4}{lines.total():7}"])


def _next_below(used: set[str], graph: dict[str, set[str]]) -> set[str]:
    """Those of the rooms used that no other of them leads to, the ground floor aside."""
    reached: set[str] = set()
    for room in used:
        ahead = set(graph[room])
        while ahead - reached:
            reached |= ahead
            ahead = {each for room in ahead for each in graph[room]}
    return used - reached - set(FLOORS[0])


def page_with_drawing(page: str) -> str:
    """The page with today's drawing between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{drawing()}\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page_with_drawing(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(sizes() if "--sizes" in sys.argv else drawing())
