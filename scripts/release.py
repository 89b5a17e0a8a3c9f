"""Print the changelog of a version that is to be released; fail if anything does not agree.

python scripts/release.py 0.2.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(version: str, changelog: str, stated: str) -> str:
    """The section of a version in the changelog.

    Args:
        version: The version, as the tag has it, without its ``v``.
        changelog: The text of CHANGELOG.md.
        stated: What clara_mlx/version.py says.

    Raises:
        SystemExit: The versions differ, or the changelog has no such section, or an empty one.
    """
    if version != stated:
        raise SystemExit(f"the tag says {version}, but clara_mlx/version.py says {stated}")
    sections = re.split(r"(?m)^## ", changelog)
    for section in sections:
        heading, _, text = section.partition("\n")
        if heading.split(" ")[0] == version and text.strip():
            return text.strip()
    raise SystemExit(f"CHANGELOG.md has no text under '## {version}'; rename 'Unreleased'")


if __name__ == "__main__":
    found = re.search(r'__version__ = "(.+)"', (ROOT / "clara_mlx" / "version.py").read_text())
    assert found
    print(notes(sys.argv[1], (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), found[1]))
