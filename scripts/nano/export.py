"""Write the pretrained base as a Mistral folder, and as a CLaRa checkpoint to train from.

The checkpoint has the trained memory-token rows, and adapters that do nothing yet.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import mlx.core as mx
from pretrain import SHAPE, clara_config

from clara_mlx.convert.export import write_checkpoint
from clara_mlx.convert.weight_map import TABLES, dimensions
from clara_mlx.train.fresh import adapter_shapes
from clara_mlx.train.parameters import new_adapter

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def export(run: Path, base: Path, checkpoint: Path) -> None:
    """Write both folders in bfloat16 from the state of a pretraining run."""
    spec = json.loads((run / "tokenizer.json").read_text())
    config = clara_config(len(spec["model"]["vocab"]))
    state = mx.load(str(run / "state.safetensors"))
    assert isinstance(state, dict)
    weights = {
        name.removeprefix("model."): array.astype(mx.bfloat16)
        for name, array in state.items()
        if name.startswith("model.")
    }
    tables = {name: weights[name] for name in TABLES}
    rows = config.base_vocab_size
    base.mkdir(parents=True, exist_ok=True)
    without_added_tokens = {name: table[:rows] for name, table in tables.items()}
    save_sharded(base, weights | without_added_tokens)
    described = {
        "architectures": ["MistralForCausalLM"],
        **SHAPE,
        "vocab_size": rows,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "hidden_act": "silu",
        "sliding_window": None,
        "torch_dtype": "bfloat16",
    }
    (base / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    for name in TOKENIZER_FILES:
        shutil.copyfile(run / name, base / name)
    sizes = dimensions(described, config.vocab_size, config.lora_r, where=str(base))
    shapes = adapter_shapes(sizes)
    adapters = {
        name: {
            path: array.astype(mx.bfloat16) for path, array in new_adapter(shapes, 0, name).items()
        }
        for name in ("encoder", "decoder")
    }
    write_checkpoint(
        checkpoint,
        config,
        base=str(base),
        layers=sizes["layers"],
        adapters=adapters,
        tables=tables,
        tokenizer=base,
    )


def save_sharded(folder: Path, weights: dict[str, mx.array]) -> None:
    """Write two files and their index, as large models have, so that no file gets large."""
    names = sorted(weights)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        weight_map |= dict.fromkeys(part, file)
        mx.save_safetensors(
            str(folder / file), {name: weights[name] for name in part}, {"format": "pt"}
        )
    size = sum(weight.nbytes for weight in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def main() -> None:
    """Command line: the run's folder, and the two folders to write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    export(arguments.run, arguments.base, arguments.checkpoint)


if __name__ == "__main__":
    main()
