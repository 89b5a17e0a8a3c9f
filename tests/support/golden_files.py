"""Where the golden data is, which variants it has, and what it expects."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]  # of the repository
GOLDEN = ROOT / "tests" / "golden"

VARIANTS = ("c16", "c4")
CHECKPOINTS = ("base", "instruct", "e2e")


@functools.cache
def expected(variant: str) -> dict[str, Any]:
    """A variant's golden.json."""
    content: dict[str, Any] = json.loads((GOLDEN / variant / "golden" / "golden.json").read_text())
    return content
