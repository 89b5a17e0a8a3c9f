"""The golden data of LCLM: where it is, and what it expects."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from golden_files import ROOT
from safetensors.numpy import load_file

LCLM_GOLDEN = ROOT / "tests" / "golden-lclm"

LCLM_VARIANTS = ("c16", "c4")


def checkpoint(variant: str) -> Path:
    """A variant's checkpoint."""
    return LCLM_GOLDEN / variant / "checkpoint"


@functools.cache
def expected(variant: str) -> dict[str, Any]:
    """A variant's golden.json."""
    content: dict[str, Any] = json.loads((LCLM_GOLDEN / variant / "golden.json").read_text())
    return content


@functools.cache
def arrays(variant: str) -> dict[str, np.ndarray[Any, Any]]:
    """A variant's arrays."""
    return load_file(LCLM_GOLDEN / variant / "golden.safetensors")


def document(variant: str, name: str) -> str:
    """The text of a golden document."""
    texts = {one["name"]: one["text"] for one in expected(variant)["documents"]}
    return str(texts[name])
