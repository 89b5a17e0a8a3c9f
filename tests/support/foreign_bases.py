"""Tiny bases of other families: random weights, and the families' real special tokens."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from chat_templates import TEMPLATES
from mlx.utils import tree_flatten
from tiny_models import SIZES, make_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers_of_all_kinds import GOLDEN_JSON, metaspace
from trajectories import report

from clara_mlx.convert.vocabulary import vocabulary_size
from clara_mlx.model.folder import ModelFolder
from clara_mlx.train.config import Fresh
from clara_mlx.train.fresh import Start

_FLOAT32 = {k: v for k, v in SIZES.items() if k != "vocab_size"} | {"torch_dtype": "float32"}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_MINISTRAL_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


@dataclass(frozen=True)
class Family:
    """What a base of a family has that CLaRa's own base has not."""

    model: dict[str, Any]  # fields of config.json
    template: str | None  # of tests/support/templates
    specials: tuple[str, ...]
    bos: str | None
    eos: tuple[str, ...]  # several: as a list
    generation_eos: tuple[str, ...] = ()  # in generation_config.json
    byte_level: bool = True
    nested: bool = False  # its text model stands inside a model that reads images


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
)
_MISTRAL = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")

FAMILIES = {
    "smollm2": Family(
        {"model_type": "llama", "tie_word_embeddings": True},
        "chatml",
        _CHATML,
        "<|im_start|>",
        ("<|im_end|>",),
    ),
    "llama3": Family(
        {"model_type": "llama", "rope_scaling": _LLAMA3_ROPE},
        "llama",
        _LLAMA3,
        "<|begin_of_text|>",
        ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "qwen2": Family(
        {"model_type": "qwen2", "tie_word_embeddings": True, "head_dim": None},
        "chatml",
        _CHATML,
        None,
        ("<|im_end|>",),
        ("<|im_end|>", "<|endoftext|>"),
    ),
    "qwen3": Family(
        {"model_type": "qwen3", "tie_word_embeddings": True},
        "qwen3",
        (*_CHATML, "<think>", "</think>"),
        None,
        ("<|im_end|>",),
    ),
    "mistral-v0.3": Family(
        {"model_type": "mistral"}, "mistral-v0.3", _MISTRAL, "<s>", ("</s>",), byte_level=False
    ),
    "ministral": Family(
        {"model_type": "ministral3", "rope_parameters": _MINISTRAL_ROPE},
        "mistral-v0.3",
        _MISTRAL,
        "<s>",
        ("</s>",),
        byte_level=False,
        nested=True,
    ),
    "gemma3": Family(
        {
            "model_type": "gemma3_text",
            "sliding_window": 24,
            "sliding_window_pattern": 2,
            "query_pre_attn_scalar": 64,
            "tie_word_embeddings": True,
        },
        "gemma",
        ("<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<bos>",
        ("<eos>", "<end_of_turn>"),
    ),
    # Marks of turns that are plain text in its tokenizer, also at the start of a prompt.
    "plain-marks": Family(
        {"model_type": "llama"}, "phi-3.5", (), "<s>", ("</s>",), byte_level=False
    ),
    "no-template": Family(
        {"model_type": "qwen2", "head_dim": None},
        None,
        ("<|end_of_text|>",),
        None,
        ("<|end_of_text|>",),
    ),
}

#: Prefix of a text model's tensors inside a larger model.
_NESTED = "model.language_model."


@functools.cache
def _trained() -> str:
    """A byte-level BPE without special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([report(n, 40) for n in range(8)], trainer)
    return str(tokenizer.to_str())


def tokenizer_json(family: Family) -> dict[str, Any]:
    """A family's ``tokenizer.json``."""
    spec: dict[str, Any] = json.loads(_trained() if family.byte_level else GOLDEN_JSON)
    if not family.byte_level:
        metaspace(spec, "first", split=False)
    first = max([*spec["model"]["vocab"].values(), *(t["id"] for t in spec["added_tokens"])]) + 1
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for id, content in enumerate(family.specials, first):
        special = content not in ("<think>", "</think>")  # as in Qwen3's
        spec["added_tokens"].append({"id": id, "content": content, **flags, "special": special})
    return spec


def make_base(name: str, folder: Path) -> Path:
    """Write a base of a family, as transformers would."""
    family = FAMILIES[name]
    folder.mkdir(parents=True)
    spec = tokenizer_json(family)
    ids = {token["content"]: token["id"] for token in spec["added_tokens"]}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    tokenizer_config: dict[str, Any] = {"bos_token": family.bos, "eos_token": family.eos[-1]}
    if family.template:
        (folder / "chat_template.jinja").write_text(TEMPLATES[family.template])
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    ends = [ids[token] for token in family.eos]
    config = (
        _FLOAT32
        | family.model
        | {
            "vocab_size": vocabulary_size(spec)
            + 13,  # real tables are longer than their vocabulary
            "bos_token_id": family.bos and ids[family.bos],
            "eos_token_id": ends if len(ends) > 1 else ends[0],
        }
    )
    if family.generation_eos:
        generation = {"eos_token_id": [ids[token] for token in family.generation_eos]}
        (folder / "generation_config.json").write_text(json.dumps(generation))
    model = make_model({k: v for k, v in config.items() if v is not None}, folder)
    weights = {}
    for key, array in tree_flatten(model.parameters()):
        # Biases and norms start as zeros and ones, where a mistake would not show.
        noise = 0.1 * mx.random.normal(array.shape) if array.ndim == 1 else 0
        if family.nested and key.startswith("model."):
            key = _NESTED + key.removeprefix("model.")
        weights[key] = array + noise
    if family.nested:
        weights |= {"model.vision_tower.patch_conv.weight": mx.zeros((4, 4))}
        weights |= {"model.multi_modal_projector.norm.weight": mx.zeros((4,))}
        config = {"model_type": "mistral3", "text_config": config, "vision_config": {}}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def convert_fresh(base: Path, output: Path) -> ModelFolder:
    """The model folder of a fresh start on a base: adapters that change nothing yet."""
    fresh = Fresh(base=str(base), doc_max_length=64, compr_rate=16, lora_r=4, dtype="float32")
    return ModelFolder.open(Start.plan(fresh, output, seed=0).write())
