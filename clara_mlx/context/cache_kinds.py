"""What a reasoner's server keeps of a prompt that changes, by the reasoner's ``config.json``.

A server trims its cache to what precedes the first change. The keys and values of attention can be
trimmed. A recurrent state can't, nor can a window that has slid over its first tokens: what is gone
from them is needed again. One such layer is enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clara_mlx.context.budget import Cache
from clara_mlx.model.regular import MOST_CONFIG, read_regular

# Names of layers whose cache grows by each token and can be trimmed.
_TRIMMABLE_LAYERS = frozenset(
    ("full_attention", "attention", "full", "global", "global_attention", "*", "-", "moe", "mlp")
)

# Fields that list the kinds of layers.
_LAYERS = ("layer_types", "layers_block_type", "block_types", "_block_types", "attention_types")

# Fields that only models with recurrent layers or convolutions have.
_RECURRENT = (
    "full_attention_interval",
    "linear_attn_config",
    "linear_num_key_heads",
    "hybrid_override_pattern",
    "attn_layer_period",
    "attn_layer_indices",
    "mamba_d_state",
    "mamba_d_ssm",
    "mamba_num_heads",
    "ssm_cfg",
    "ssm_state_size",
    "state_size",
    "lru_width",
    "conv_L_cache",
    "full_attn_idxs",
    "layer_group_size",
)
_RECURRENT_TYPES = ("mamba", "rwkv", "recurrent_gemma", "jamba", "plamo2", "baichuan_m1")

# Models that slide a window over some layers without listing them. A window in the config alone
# says nothing: many have one that is not used.
_SLIDING_TYPES = (
    "gpt_oss",
    "gemma3",
    "cohere2",
    "exaone4",
    "exaone_moe",
    "mimo_v2_flash",
    "step3p5",
    "olmo3",
    "plamo3",
)


def cache_of(config: Mapping[str, Any]) -> Cache:
    """What a server keeps of a prompt that changes, for a model with this ``config.json``."""
    return "whole" if any(map(_is_whole, _parts(config))) else "trimmable"


def cache_of_folder(folder: Path) -> Cache | None:
    """The same for a model's folder; None if it has no config, as if it held only a tokenizer."""
    try:
        config = json.loads(read_regular(folder.expanduser() / "config.json", MOST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return None
    return cache_of(config) if isinstance(config, dict) and "model_type" in config else None


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A config, and the part of it that describes the language model of one that sees, too."""
    yield config
    for name in ("text_config", "llm_config", "language_config"):
        part = config.get(name)
        if isinstance(part, Mapping):
            yield part


def _is_whole(config: Mapping[str, Any]) -> bool:
    kind = str(config.get("model_type") or "")
    listed = [config[name] for name in _LAYERS if isinstance(config.get(name), list)]
    if listed:
        return any(not _TRIMMABLE_LAYERS.issuperset(map(str, layers)) for layers in listed)
    if kind.startswith(_RECURRENT_TYPES + _SLIDING_TYPES):
        return True
    return any(config.get(name) for name in _RECURRENT)
