"""A small Python project with a failing test, and real commands that are run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from clara_mlx.errors import ClaraError

_MODULE = '''"""Settings by name."""

LIMIT_1 = 10
LIMIT_2 = 20
LIMIT_3 = 30
LIMIT_4 = 40


def cobra_nickel():
    raise KeyError("tavern")


def satin_hinge(count):
    return count + 1
'''

_TEST_MODULE = """import sys
import unittest

sys.path.insert(0, "src")

import grain_iron


class RouterReloadTest(unittest.TestCase):
    def test_tavern_primal(self):
        self.assertEqual(grain_iron.satin_hinge(41), 43)
"""

_PASSING_TEST = """
    def test_{}(self):
        self.assertLess({}, 100)
"""

# Enough of them that their output is long.
_PASSING = 40

_SETTINGS = "WORKERS=24\nBUCKET=quiet-fond\nTIMEOUT=950\n"

# Seconds after which a command is given up.
_PATIENCE = 60


@dataclass(frozen=True)
class Command:
    """A command that the story runs, as a person would type it."""

    source: str  # the label that its output is remembered by
    typed: str
    arguments: tuple[str, ...]  # what is run; ``python`` is this Python
    last_lines: int | None = None  # of what it prints, as ``tail`` gives them; None: all


@dataclass(frozen=True)
class Question:
    """A question about the outputs, whose answer is known as the project is ours."""

    text: str
    answer: str


COMMANDS = (
    Command("unittest", "python -m unittest -v", ("python", "-m", "unittest", "-v")),
    Command(
        "grep",
        "grep -Hn 'def cobra' src/grain_iron.py",
        ("grep", "-Hn", "def cobra", "src/grain_iron.py"),
    ),
    Command("env", "cat settings.env", ("cat", "settings.env")),
    # Without the path, on which clara-nano's answer would depend.
    Command(
        "python",
        "PYTHONPATH=src python -c 'from grain_iron import *; cobra_nickel()' 2>&1 | tail -n 2",
        ("python", "-c", "from grain_iron import *; cobra_nickel()"),
        last_lines=2,
    ),
)

QUESTIONS = (
    Question("On which line is cobra_nickel defined?", "9"),
    Question("What is WORKERS?", "24"),
    Question("What is BUCKET?", "quiet-fond"),
    Question("Which exception was raised?", "KeyError"),
    Question("Which test failed?", "test_tavern_primal"),
)


def make_project(folder: Path) -> None:
    """Write the project's files into a new folder."""
    (folder / "src").mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "src" / "grain_iron.py").write_text(_MODULE)
    passing = "".join(_PASSING_TEST.format(f"limit_{n:02}", n) for n in range(_PASSING))
    (folder / "tests" / "test_router.py").write_text(_TEST_MODULE + passing)
    (folder / "tests" / "__init__.py").touch()
    (folder / "settings.env").write_text(_SETTINGS)


def run(command: Command, folder: Path) -> bytes:
    """Run a command in the project; what it prints, standard error among it.

    Raises:
        ClaraError: The program isn't there, or doesn't end.
    """
    program, *rest = command.arguments
    program = sys.executable if program == "python" else program
    environment = os.environ | {"PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"NO_COLOR": "1", "PYTHON_COLORS": "0", "LC_ALL": "C"}
    try:
        printed = subprocess.run(
            [program, *rest],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,  # some fail, as commands do
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClaraError(f"{command.typed}: {error}") from error
    if command.last_lines is None:
        return printed
    return b"".join(printed.splitlines(keepends=True)[-command.last_lines :])
