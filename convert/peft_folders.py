"""Adapters as peft's own ``save_pretrained`` writes them: a folder for each, with its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clara_mlx.convert.downloads import is_named
from clara_mlx.errors import CheckpointError
from clara_mlx.model.lora import SCALE

SETTINGS = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

# Settings under which an adapter is another function than rank and scale say, and their values
# that mean nothing.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "use_rslora": (None, False),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "fan_in_fan_out": (None, False),
    "bias": (None, "none"),
    "layer_replication": (None,),
    "layers_to_transform": (None,),
    "peft_type": (None, "LORA"),
}


def find(checkpoint: Path) -> dict[str, Path]:
    """The file with the weights of each adapter that has a folder of its own, by adapter name."""
    found = {}
    for folder in sorted(checkpoint.glob("*_adapter")):
        files = [folder / name for name in _WEIGHTS if is_named(folder / name)]
        if files:
            found[folder.name] = files[0]
    return found


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse the settings of an adapter that is not a plain LoRA of CLaRa's scale.

    Raises:
        CheckpointError: The message names the file ``path`` and the setting.
    """
    for name, plain in _PLAIN.items():
        if settings.get(name) not in plain:
            raise CheckpointError(
                f"{path}: {name} is {settings[name]!r:.60}, but CLaRa's adapters are plain LoRA "
                "without it; merge it, or train without it"
            )
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if rank is not None and alpha != SCALE * rank:
        raise CheckpointError(
            f"{path}: lora_alpha {alpha!r:.20} with r {rank!r:.20}, but CLaRa scales its adapters "
            f"by {SCALE:g}: lora_alpha must be {SCALE:g} times r"
        )
