"""Small mlx-lm models with random weights, and the bytes of stored tensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import load_model

SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
MOE = SIZES | {
    "model_type": "qwen3_moe",
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [0],
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}
TIED = SIZES | {"model_type": "qwen3", "tie_word_embeddings": True, "torch_dtype": "float16"}
# 160 inputs are not a multiple of 64: mlx-lm leaves down_proj as it is.
ODD = SIZES | {"model_type": "mistral", "intermediate_size": 160, "torch_dtype": "bfloat16"}
WINDOWED = SIZES | {
    "model_type": "gpt_oss",
    "num_hidden_layers": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 128,
}

# Two layers with a recurrent state for one with attention; CPUs do experts in float32 only.
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 3,
}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
_SMALL = SIZES | {"torch_dtype": "float32"}
_TEXT = _SMALL | _LINEAR | {"model_type": "qwen3_5_text"}
HYBRIDS: list[dict[str, Any]] = [
    _SMALL | _LINEAR | _EXPERTS | {"model_type": "qwen3_next", "partial_rotary_factor": 0.25},
    {"model_type": "qwen3_5", "torch_dtype": "float32", "text_config": _TEXT},
    {"model_type": "qwen3_5_moe", "torch_dtype": "float32", "text_config": _TEXT | _EXPERTS},
]
# A token's keys and values are one latent, and a part that has its position.
_LATENT = _SMALL | {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
}
LATENTS: list[dict[str, Any]] = [
    _LATENT | {"model_type": "glm4_moe_lite"},
    _LATENT | {"model_type": "deepseek_v3"},
]


def make_model(config: dict[str, Any], folder: Path) -> Any:
    """Make an mlx-lm model with random weights, cast to its dtype as mlx_lm.convert does."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    mx.random.seed(0)
    model, _ = load_model(folder, lazy=True, strict=False)
    model.set_dtype(getattr(mx, config.get("torch_dtype", "bfloat16")))
    return model


def stored_bytes(folder: Path, pattern: str = "model*.safetensors") -> int:
    """Bytes of all tensors in safetensors files, from their headers."""
    total = 0
    for file in folder.glob(pattern):
        with file.open("rb") as opened:
            header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
        header.pop("__metadata__", None)
        total += sum(end - start for start, end in (t["data_offsets"] for t in header.values()))
    assert total
    return total
