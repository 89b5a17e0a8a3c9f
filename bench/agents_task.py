"""A task of many steps over real files: what an agent is to run, and what it must still know later.

Used by agents.py. It measures nothing by itself.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Where the files come from: the source of this package.
_SOURCE = Path(__file__).parents[1] / "clara_mlx"

# Characters of a file that is read; some agents cut longer outputs themselves.
_LEAST = 2_000
_MOST = 8_000

# A function or a class at the beginning of a line.
# def name(
_DEFINITION = re.compile(r"^(?:def|class) ([a-z_A-Z]{6,40})\b")

# An escape of JSON.
# \\n
_ESCAPE = re.compile(r"\\(?:[nrtbf\"\\/]|u[0-9a-fA-F]{4})")


@dataclass(frozen=True)
class Step:
    """One command, and a fact of its output that is asked for later.

    Attributes:
        command: What the agent's shell is to run.
        question: Asks for the fact, without its answer.
        answer: A part of one line of the output, blanks as one.
        name: What the question asks about.
    """

    command: str
    question: str
    answer: str
    name: str


def make_project(folder: Path, count: int) -> list[Step]:
    """Copy files into a folder, and write the steps of a task about them.

    Args:
        folder: An empty folder, in which the commands are run.
        count: The number of steps.
    """
    names = Counter(name for path in _files() for _, name in _definitions(path))
    steps = []
    for path in _files():
        own = [(line, name) for line, name in _definitions(path) if names[name] == 1]
        if not own or not _LEAST < path.stat().st_size < _MOST:
            continue
        shown = path.relative_to(_SOURCE.parent)
        target = folder / shown
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        line, name = own[len(own) // 2]
        text = path.read_text(encoding="utf-8").splitlines()[line - 1]
        question = f"On which line of {shown} is {name} defined?"
        if len(steps) % 3 == 2:
            command, answer = f"cat -n {shown}", f"{line} {text}"
        else:
            command, answer = f"grep -n '' {shown}", f"{line}:{text}"
        steps.append(Step(command, question, " ".join(answer.split()), name))
    if len(steps) < count:
        raise RuntimeError(f"the source has files for {len(steps)} steps only, not for {count}")
    return steps[:: len(steps) // count][:count]


def holds(text: str, step: Step) -> bool:
    """Whether a text has the answer to a step's question, also as JSON with a text in it."""
    plain = _ESCAPE.sub(lambda found: json.loads(f'"{found[0]}"'), text)
    return any(step.answer in " ".join(one.split()) for one in (text, plain))


def _files() -> Sequence[Path]:
    return sorted(path for path in _SOURCE.rglob("*.py") if path.name != "__init__.py")


def _definitions(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if found := _DEFINITION.match(line):
            yield number, found[1]
