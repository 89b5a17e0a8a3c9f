"""A release takes its notes from the changelog, and stops where versions do not agree."""

from __future__ import annotations

import pytest
from release import notes

CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n## 0.2.0 (2026-12-24)\n\n- better\n\n## 0.1.0\n- first\n"
)


def test_the_section_of_the_version() -> None:
    assert notes("0.2.0", CHANGELOG, "0.2.0") == "- better"
    assert notes("0.1.0", CHANGELOG, "0.1.0") == "- first"


@pytest.mark.parametrize(("version", "stated"), [("0.2.0", "0.1.0"), ("0.3.0", "0.3.0")])
def test_what_does_not_agree(version: str, stated: str) -> None:
    with pytest.raises(SystemExit, match=version):
        notes(version, CHANGELOG, stated)
