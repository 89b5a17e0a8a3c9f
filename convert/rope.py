"""Rotary positions in a base's config, refused where mlx-lm would compute others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from clara_mlx.errors import CheckpointError

_PLACES = ("rope_scaling", "rope_parameters")


def settle_rope(config: dict[str, Any], where: Path) -> dict[str, Any]:
    """A config whose rotary positions mlx-lm computes as transformers does, within the window.

    Args:
        config: A base's config, as mlx-lm will read it.
        where: Its file, for errors.

    Raises:
        CheckpointError: mlx-lm computes something else, or a number is missing.
    """
    theta = config.get("rope_theta", 10000.0)
    if type(theta) not in (int, float) or not 1 < theta < math.inf:
        raise CheckpointError(f"{where}: rope_theta must be a number above 1, not {theta!r:.40}")
    config = dict(config)
    for place in _PLACES:
        rope = config.get(place)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise CheckpointError(f"{where}: {place} must be an object, not {rope!r:.40}")
        config[place] = _settle(rope, config.get("max_position_embeddings"), f"{where}: {place}")
    return config


def _settle(rope: dict[str, Any], longest: Any, where: str) -> dict[str, Any]:
    """One description of rotary positions; ``longest`` is ``max_position_embeddings``."""
    kind, old = rope.get("rope_type"), rope.get("type")
    if kind and old and kind != old and "mrope" not in (kind, old):
        raise CheckpointError(f"{where} has rope_type {kind!r:.40} and type {old!r:.40}; keep one")
    kind = old or kind or "default"
    if rope.get("partial_rotary_factor", 1) not in (None, 1) and kind != "proportional":
        raise CheckpointError(
            f"{where}: partial_rotary_factor {rope['partial_rotary_factor']!r:.40} is ignored by "
            "mlx-lm for this base, so it would answer wrongly"
        )
    factor = rope.get("factor", 1)
    if type(factor) not in (int, float) or not 0 < factor < math.inf:
        raise CheckpointError(f"{where}: factor must be a number above 0, not {factor!r:.40}")
    if kind == "dynamic":  # it begins beyond the window, which no prompt leaves
        return {key: value for key, value in rope.items() if key not in ("type", "factor")} | {
            "rope_type": "default"
        }
    if kind == "yarn":
        usual = 0.1 * math.log(max(factor, 1)) + 1
        attention = rope.get("attention_factor")
        if attention is not None and not math.isclose(attention, usual, rel_tol=1e-3):
            raise CheckpointError(f"{where}: attention_factor {attention!r:.40} is not read")
        if rope.get("truncate", True) is not True:
            raise CheckpointError(f"{where}: truncate {rope['truncate']!r:.40} is not read")
        if "original_max_position_embeddings" not in rope:
            return rope | {"original_max_position_embeddings": longest}
    if kind == "longrope" and rope.get("short_factor") != rope.get("long_factor"):
        raise CheckpointError(
            f"{where}: mlx-lm uses long_factor for short texts, too, so these would be read wrongly"
        )
    return rope
