"""The models that `clara-mlx plan` knows by name: reasoners.json, which names the source of each.

Of each config only the fields that decide a size are kept. The others that mlx-lm needs (rotary
embeddings, norm epsilons) may have any value, as they change no shape.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from clara_mlx.errors import ClaraError


@dataclass(frozen=True)
class Reasoner:
    """A model that is known by name."""

    name: str
    repository: str  # hub id of its weights
    source: str  # the public file that states the config
    config: dict[str, Any]


_MODELS = json.loads((files(__package__) / "reasoners.json").read_text(encoding="utf-8"))

#: By name; the first is the default.
REASONERS = {entry["name"]: Reasoner(**entry) for entry in _MODELS["reasoners"]}

#: CLaRa-7B at 16x for `shapes.clara_from_config`; checked against bench/results/full_size.json.
CLARA_7B: dict[str, Any] = _MODELS["clara_7b"]


def find(name: str) -> Reasoner:
    """Find a reasoner by its name or repository, in upper or lower case.

    Raises:
        ClaraError: No known reasoner has that name.
    """
    for entry in REASONERS.values():
        if name.lower() in (entry.name.lower(), entry.repository.lower()):
            return entry
    raise ClaraError(
        f"{name}: no such folder or config.json, and not a known model; known models are "
        f"{', '.join(REASONERS)}"
    )
