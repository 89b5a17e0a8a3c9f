"""Measures which matrices of CLaRa's base need more bits than the others.

    python bench/quantisation_kinds.py

Each row keeps most matrices at 4 bits and some at 8, and says what that costs and what it gives:
latents beside those of the bfloat16 folder, and answers from them. Two models: clara-nano, and one
with random weights and the proportions of a 7B base, which says whether nano is an exception (it
answers nothing). Matrices are dequantised before they are used, which changes no value and lets a
CPU measure a row in seconds. Results go to bench/results/quantisation-kinds.json.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import dequantize_model
from quantisation import NANO, ROOT, TEXTS, encode, measure

from clara_mlx import machine
from clara_mlx.convert import Source, convert
from clara_mlx.evaluate.sets import generate_set
from clara_mlx.model.clara import Clara, load
from clara_mlx.model.schemes import Quantisation, Recipe
from clara_mlx.train.config import Fresh
from clara_mlx.train.fresh import Start

KINDS = ("embed_tokens", "lm_head", "q_proj", "k_proj", "v_proj", "o_proj")
KINDS = (*KINDS, "gate_proj", "up_proj", "down_proj")
PER_TOOL = 5  # generated outputs of each tool, from which questions are made
LAYERS = 8  # of the random model
#: Mistral-7B's proportions at an eighth of its width.
RANDOM = {
    "hidden_size": 512,
    "intermediate_size": 1792,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "num_hidden_layers": LAYERS,
}


def keep(wanted: Callable[[str, int], bool], bits: int = 8) -> Recipe:
    """More bits for the matrices whose kind and layer are wanted, 4 for the others."""

    def choose(path: str) -> Quantisation:
        layer = re.search(r"layers\.(\d+)\.", path)
        number = int(layer[1]) if layer else -1
        return Quantisation(bits if wanted(path.rpartition(".")[2], number) else 4)

    return choose


def recipes(layers: int) -> dict[str, Any]:
    """The arguments of `convert` for each row, by its name."""
    ends = {0, layers - 1}
    rows: dict[str, Any] = {
        "bfloat16": {},
        "8 bits": {"quantisation": Quantisation(8)},
        "5 bits": {"quantisation": Quantisation(5)},
        "4 bits, groups of 32": {"quantisation": Quantisation(4, 32)},
        "4 bits": {"quantisation": Quantisation(4)},
        "mixed_4_6": {"quantisation": Quantisation(8), "recipe": "mixed_4_6"},
    }
    several = {
        "v_proj, o_proj": ("v_proj", "o_proj"),
        "embed_tokens, v_proj": ("embed_tokens", "v_proj"),
        "embed_tokens, v_proj, o_proj": ("embed_tokens", "v_proj", "o_proj"),
        "v_proj, down_proj": ("v_proj", "down_proj"),
        "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    }
    chosen: dict[str, Recipe] = {}
    for one in KINDS:
        chosen[f"{one} at 8"] = keep(lambda kind, _, one=one: kind == one)
    for bits in (6, 8):
        for name, kinds in several.items():
            chosen[f"{name} at {bits}"] = keep(lambda kind, _, kinds=kinds: kind in kinds, bits)
    chosen |= {
        "first layer at 8": keep(lambda _, layer: layer == 0),
        "last layer at 8": keep(lambda _, layer: layer == layers - 1),
        "first and last layer at 8": keep(lambda _, layer: layer in ends),
    }
    return rows | {
        f"4 bits, {name}": {"quantisation": Quantisation(8), "recipe": recipe}
        for name, recipe in chosen.items()
    }


def random_source(root: Path) -> Source:
    """A fresh start on a base with random weights."""
    base = root / "base"
    shutil.copytree(NANO / "base", base)
    config = json.loads((base / "config.json").read_text()) | RANDOM
    for file in base.glob("model*"):
        file.unlink()
    (base / "config.json").write_text(json.dumps(config))
    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = {
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    mx.random.seed(0)
    tables = (config["vocab_size"], hidden)
    weights = {name: mx.random.normal(tables) for name in ("model.embed_tokens", "lm_head")}
    for i in range(LAYERS):
        for name, shape in shapes.items():
            weights[f"model.layers.{i}.{name}"] = mx.random.normal(shape) * shape[1] ** -0.5
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{i}.{norm}"] = mx.ones(hidden)
    weights["model.norm"] = mx.ones(hidden)
    mx.save_safetensors(
        str(base / "model.safetensors"),
        {f"{name}.weight": array.astype(mx.bfloat16) for name, array in weights.items()},
    )
    fresh = Fresh(base=str(base), doc_max_length=64, compr_rate=16, lora_r=4)
    start = Start.plan(fresh, root / "run", seed=0)
    start.write()
    return start.source


def load_dequantised(folder: Path) -> Clara:
    """A model folder whose matrices are float32 with the values that quantisation has left."""
    clara = load(folder)
    dequantize_model(clara.network)
    clara.network.set_dtype(mx.float32)
    return clara


def main() -> None:
    probes = generate_set("brief", 0, PER_TOOL)
    texts = [output.text for output in probes.outputs][:TEXTS]
    models = {}
    to = ROOT / "bench" / "results" / "quantisation-kinds.json"
    for model in ("clara-nano", "random"):
        rows: list[dict[str, Any]] = []
        exact: dict[str, Any] = {}
        models[model] = rows
        with tempfile.TemporaryDirectory() as work:
            if model == "random":
                source = random_source(Path(work))
            else:
                source = Source.open(NANO / "checkpoint", base=NANO / "base")
            for name, arguments in recipes(source.sizes["layers"]).items():
                converted = convert(source, Path(work) / "model", force=True, **arguments)
                clara = load_dequantised(converted.folder)
                row: dict[str, Any] = {"way": name, "bits_per_weight": converted.bits_per_weight}
                if model == "random":
                    latents = encode(clara, texts)
                    exact.setdefault("latents", latents)
                    cosines = (latents * exact["latents"]).sum(axis=1)
                    row |= {
                        "mean_cosine": float(cosines.mean()),
                        "worst_cosine": float(cosines.min()),
                    }
                else:
                    row |= measure(clara, probes, texts, exact)
                rows.append(row)
                print(
                    f"| {name} | {row['bits_per_weight']:.2f} | {row['mean_cosine']:.5f} | "
                    f"{row['worst_cosine']:.5f} | {row.get('right', '')} | "
                    f"{row.get('same_answer', '')} |",
                    flush=True,
                )
        result = {"machine": machine.describe(), "probes": probes.to_dict(), "models": models}
        to.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
