"""Fields of a base's config that change what it computes, but that mlx-lm would ignore."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import mlx.nn as nn

from clara_mlx.errors import CheckpointError

# The values under which a field changes nothing, for the networks that CLaRa's bases have.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("hidden_act", "hidden_activation", "activation_function"), ("silu", "swish")),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct", "rope_percent"), (1,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "clip_qkv"), ()),
    **dict.fromkeys(("attention_multiplier", "query_pre_attn_scalar"), ()),
    **dict.fromkeys(("embedding_multiplier", "residual_multiplier", "logits_scaling"), (1,)),
    **dict.fromkeys(("scale_emb", "logit_scale", "mup_width_multiplier"), (1,)),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), (0, 1)),
    **dict.fromkeys(("use_qk_norm", "qk_layernorm", "qk_norm", "alibi", "parallel_attn"), (False,)),
    "model_file": (),  # code of its own
    "quantize_activations": (False,),  # that one mlx-lm would do, to a base that was not made so
}


def refuse_ignored(config: dict[str, Any], network: nn.Module, *, where: Path) -> None:
    """Refuse a config with a field that changes what a base computes and that mlx-lm ignores.

    Args:
        config: A base's config.
        network: As mlx-lm builds it from that.
        where: The config's file, for errors.

    Raises:
        CheckpointError: The message names the field and its value.
    """
    arguments = importlib.import_module(type(network).__module__).ModelArgs
    for name, neutral in _NEUTRAL.items():
        value = config.get(name)
        if value is None or value in neutral or name in arguments.__dataclass_fields__:
            continue
        raise CheckpointError(
            f"{where}: {name} is {value!r:.60}, which mlx-lm ignores for model_type "
            f"{config.get('model_type')!r:.40}; it would compute another model than this one"
        )
