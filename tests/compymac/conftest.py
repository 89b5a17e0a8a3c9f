"""CompyMac's own modules, of the checkout."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compymac_checkout import CHECKOUT

from clara_mlx.compymac.settings import close_shared


@pytest.fixture
def compymac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import one of its modules by name; its package needs httpx."""
    pytest.importorskip("httpx")
    monkeypatch.syspath_prepend(str(CHECKOUT / "src"))
    monkeypatch.setenv("CLARA_MLX_MEMORY", str(tmp_path / "memory.db"))
    monkeypatch.setenv("CONTEXT_TOKEN_BUDGET", "12000")
    monkeypatch.setenv("CONTEXT_RESERVED_FOR_RESPONSE", "1000")
    monkeypatch.delenv("CLARA_MLX_MODEL", raising=False)
    yield lambda name: importlib.import_module(f"compymac.{name}")
    close_shared()
    for name in [name for name in sys.modules if name.split(".")[0] == "compymac"]:
        del sys.modules[name]
