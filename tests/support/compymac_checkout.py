"""The real CompyMac, where CLARA_MLX_COMPYMAC names a checkout (scripts/compymac makes one)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(os.environ.get("CLARA_MLX_COMPYMAC") or "none")
needs_checkout = pytest.mark.skipif(
    not (CHECKOUT / "src/compymac/memory.py").is_file(),
    reason="CLARA_MLX_COMPYMAC names no checkout of CompyMac; scripts/compymac FOLDER makes one",
)
