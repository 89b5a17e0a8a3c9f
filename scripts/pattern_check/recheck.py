"""Asks recheck, a ReDoS checker from npm (MIT licence), about patterns; node runs it.

It is installed into .venv, which git ignores, when it is first needed: 57 MB, which is why it is no
part of the environment that the tests have.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

VERSION = "4.5.0"

FOLDER = Path(__file__).parents[2] / ".venv" / "recheck"

# For one pattern: milliseconds, the size of what the automaton is made of, and the sum of all
# counts of repeats. Above them recheck would not try to prove anything.
_LIMITS = {
    "timeout": 20_000,
    "maxPatternSize": 20_000,
    "maxNFASize": 200_000,
    "maxRepeatCount": 400,
    "recallLimit": -1,
}

_SCRIPT = f"""
const {{ checkSync }} = require("recheck");
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
for (const source of given) {{
  const found = checkSync(source, "", {json.dumps(_LIMITS)});
  console.log(JSON.stringify({{
    status: found.status,
    checker: found.checker ?? "",
    summary: found.complexity?.summary ?? found.error?.message ?? found.error?.kind ?? "",
    attack: (found.attack?.pattern ?? "").replaceAll("repeat(0)", "repeat(n)"),
  }}));
}}
"""


class Unavailable(Exception):
    """Recheck can't run here: there is no node, or no npm registry."""


@dataclass(frozen=True)
class Answer:
    """What recheck says about one pattern.

    Attributes:
        status: safe, vulnerable or unknown.
        checker: automaton, which proves, or fuzz, which tries.
        summary: The complexity in words.
        attack: A text that takes long, as an expression of JavaScript.
    """

    status: str
    checker: str
    summary: str
    attack: str

    @property
    def is_proof(self) -> bool:
        """Whether the pattern is proved to be linear."""
        return self.status == "safe" and self.checker == "automaton"


def install() -> None:
    """Install recheck, if it is not there.

    Raises:
        Unavailable: There is no node, or it can't be installed.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        raise Unavailable("node and npm are not installed")
    manifest = FOLDER / "node_modules" / "recheck" / "package.json"
    if manifest.is_file() and json.loads(manifest.read_text())["version"] == VERSION:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    npm = ["npm", "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run([*npm, f"recheck@{VERSION}"], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Unavailable(f"npm can't install recheck: {said[0] if said else 'no reason given'}")


def ask(sources: list[str]) -> list[Answer]:
    """What recheck says about patterns in JavaScript, in their order."""
    if not sources:
        return []
    done = subprocess.run(
        ["node", "-e", _SCRIPT],
        cwd=FOLDER,
        input=json.dumps(sources),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Unavailable(f"recheck failed: {done.stderr.strip()[-400:]}")
    return [Answer(**json.loads(line)) for line in done.stdout.splitlines()]
