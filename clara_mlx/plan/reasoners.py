"""Sizes of the models that `clara-mlx plan` knows by name, and the public files that state them.

Of each config only the fields that decide a size are kept. The others that mlx-lm needs (rotary
embeddings, norm epsilons) have any value, as they change no shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clara_mlx.errors import ClaraError


@dataclass(frozen=True)
class Reasoner:
    """A model that is known by name."""

    name: str
    repository: str  # hub id of its weights
    source: str  # the public file that states the config
    config: dict[str, Any]


_ANY = {"rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False}
_QWEN3 = _ANY | {"vocab_size": 151936, "head_dim": 128, "max_position_embeddings": 40960}
_QWEN3_MOE = _QWEN3 | {
    "model_type": "qwen3_moe",
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
_SLIME = "github.com/THUDM/slime, scripts/models/{}.sh (624b824)"

#: By name; the first is the default.
REASONERS = {
    entry.name: entry
    for entry in (
        Reasoner(
            "Qwen3-235B-A22B",
            "Qwen/Qwen3-235B-A22B",
            _SLIME.format("qwen3-235B-A22B"),
            _QWEN3_MOE
            | {
                "hidden_size": 4096,
                "num_hidden_layers": 94,
                "intermediate_size": 12288,
                "num_attention_heads": 64,
                "num_key_value_heads": 4,
                "num_experts": 128,
                "moe_intermediate_size": 1536,
            },
        ),
        Reasoner(
            "Qwen3-30B-A3B",
            "Qwen/Qwen3-30B-A3B",
            _SLIME.format("qwen3-30B-A3B"),
            _QWEN3_MOE
            | {
                "hidden_size": 2048,
                "num_hidden_layers": 48,
                "intermediate_size": 6144,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "num_experts": 128,
                "moe_intermediate_size": 768,
            },
        ),
        Reasoner(
            "Qwen3-Coder-480B-A35B",
            "Qwen/Qwen3-Coder-480B-A35B-Instruct",
            "its config.json, quoted in github.com/baidu/vLLM-Kunlun, docs/source (4ac5214)",
            _QWEN3_MOE
            | {
                "hidden_size": 6144,
                "num_hidden_layers": 62,
                "intermediate_size": 8192,
                "num_attention_heads": 96,
                "num_key_value_heads": 8,
                "num_experts": 160,
                "moe_intermediate_size": 2560,
                "max_position_embeddings": 262144,
            },
        ),
        Reasoner(
            "Qwen3-32B",
            "Qwen/Qwen3-32B",
            _SLIME.format("qwen3-32B"),
            _QWEN3
            | {
                "model_type": "qwen3",
                "hidden_size": 5120,
                "num_hidden_layers": 64,
                "intermediate_size": 25600,
                "num_attention_heads": 64,
                "num_key_value_heads": 8,
            },
        ),
        Reasoner(
            "GLM-4.5-Air",
            "zai-org/GLM-4.5-Air",
            _SLIME.format("glm4.5-106B-A12B"),
            _ANY
            | {
                "model_type": "glm4_moe",
                "vocab_size": 151552,
                "hidden_size": 4096,
                "num_hidden_layers": 46,
                "first_k_dense_replace": 1,
                "intermediate_size": 10944,
                "moe_intermediate_size": 1408,
                "n_routed_experts": 128,
                "n_shared_experts": 1,
                "num_experts_per_tok": 8,
                "num_attention_heads": 96,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "attention_bias": True,
                "use_qk_norm": False,
                "partial_rotary_factor": 0.5,
                "n_group": 1,
                "topk_group": 1,
                "norm_topk_prob": True,
                "routed_scaling_factor": 1.0,
                "rope_scaling": None,
                "max_position_embeddings": 131072,
            },
        ),
        Reasoner(
            "gpt-oss-120b",
            "openai/gpt-oss-120b",
            "github.com/openai/gpt-oss, gpt_oss/torch/model.py (0568dfc)",
            {
                "model_type": "gpt_oss",
                "vocab_size": 201088,
                "hidden_size": 2880,
                "num_hidden_layers": 36,
                "intermediate_size": 2880,
                "num_local_experts": 128,
                "num_experts_per_tok": 4,
                "num_attention_heads": 64,
                "num_key_value_heads": 8,
                "head_dim": 64,
                "sliding_window": 128,
                "max_position_embeddings": 131072,
            },
        ),
        Reasoner(
            "Llama-3.3-70B",
            "meta-llama/Llama-3.3-70B-Instruct",
            "its config.json, as kept in huggingface.co/relaxml/Llama-3.3-70B-Instruct-QTIP-3Bit",
            _ANY
            | {
                "model_type": "llama",
                "vocab_size": 128256,
                "hidden_size": 8192,
                "num_hidden_layers": 80,
                "intermediate_size": 28672,
                "num_attention_heads": 64,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "max_position_embeddings": 131072,
            },
        ),
    )
}

#: CLaRa-7B's base, Mistral-7B-Instruct-v0.2; checked against bench/results/full_size.json.
CLARA_7B_BASE = _ANY | {
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
}
CLARA_7B_RANK = 16  # of its adapters
CLARA_7B_ADDED_TOKENS = 19  # at 16x: 16 memory tokens, <AE>, <ENC>, <SEP>


def find(name: str) -> Reasoner:
    """Find a reasoner by its name or repository, in upper or lower case.

    Raises:
        ClaraError: No known reasoner has that name.
    """
    for entry in REASONERS.values():
        if name.lower() in (entry.name.lower(), entry.repository.lower()):
            return entry
    raise ClaraError(
        f"{name}: no such folder or config.json, and no known model; known are "
        f"{', '.join(REASONERS)}"
    )
