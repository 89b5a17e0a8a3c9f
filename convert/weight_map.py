"""Where each tensor of a checkpoint goes in a model folder, as one table with an inverse.

The base's table is the list of its network's own parameters, whose names mlx-lm and Hugging Face
share, so the base maps to itself. Adapters take mlx-lm's names and orientation: A (rank, in)
becomes ``lora_a`` (in, rank), B (out, rank) becomes ``lora_b``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clara_mlx.convert.tensors import TensorRef, refuse_dtype
from clara_mlx.errors import CheckpointError

#: Adapter names in a checkpoint -> in a model folder.
ADAPTER_NAMES = {
    "encoder_adapter": "encoder",
    "decoder_adapter": "decoder",
    "query_reasoner_adapter": "query_reasoner",
}


@dataclass(frozen=True)
class Weight:
    """One line of the table; ``{i}`` is the layer, a shape has numbers or `dimensions`' names."""

    source: str
    target: str | None  # None: dropped on purpose
    shape: tuple[str | int, ...] = ()
    transposed: bool = False

    def numbers(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with the names' numbers."""
        return tuple(size if isinstance(size, int) else sizes[size] for size in self.shape)


#: The two tables, which come from decoder_first_last_layers.pth and not from the base.
EMBEDDING, LM_HEAD = TABLES = ("model.embed_tokens.weight", "lm_head.weight")

TABLE_LINES = tuple(Weight(name, name, ("rows", "hidden")) for name in TABLES)


def base_table(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Weight, ...]:
    """The base's table, from the shapes of its network's parameters."""
    return tuple(Weight(name, name, shape) for name, shape in shapes.items())


def _adapted(path: str, out_dims: str, in_dims: str) -> tuple[Weight, Weight]:
    name = "model.layers.{i}." + path
    return (
        Weight(f"{name}.lora_A.weight", f"{name}.lora_a", ("rank", in_dims), transposed=True),
        Weight(f"{name}.lora_B.weight", f"{name}.lora_b", (out_dims, "rank"), transposed=True),
    )


ADAPTER = (
    *_adapted("self_attn.q_proj", "heads", "hidden"),
    *_adapted("self_attn.k_proj", "kv_heads", "hidden"),
    *_adapted("self_attn.v_proj", "kv_heads", "hidden"),
    *_adapted("self_attn.o_proj", "hidden", "heads"),
    *_adapted("mlp.gate_proj", "mlp", "hidden"),
    *_adapted("mlp.up_proj", "mlp", "hidden"),
    *_adapted("mlp.down_proj", "hidden", "mlp"),
    # What peft adds to a freshly created adapter: copies of the two tables.
    Weight("model.embed_tokens.weight", None),
    Weight("lm_head.weight", None),
)


def expand(table: tuple[Weight, ...], layers: int) -> dict[str, Weight]:
    """The table with one line per layer, by source name."""
    lines = {}
    for weight in table:
        for i in range(layers if "{i}" in weight.source else 1):
            target = weight.target and weight.target.replace("{i}", str(i))
            source = weight.source.replace("{i}", str(i))
            lines[source] = Weight(source, target, weight.shape, weight.transposed)
    return lines


def misfits(
    tensors: Mapping[str, TensorRef],
    table: tuple[Weight, ...],
    sizes: Mapping[str, int],
) -> list[str]:
    """Every tensor that is missing, unexpected or of the wrong shape."""
    lines = expand(table, sizes["layers"])
    problems = [
        f"missing {name}" for name, line in lines.items() if line.target and name not in tensors
    ]
    for name, ref in tensors.items():
        if name not in lines:
            problems.append(f"unexpected {name}")
        elif lines[name].target:
            shape = lines[name].numbers(sizes)
            if ref.shape != shape:
                problems.append(f"{name} has shape {ref.shape} instead of {shape}")
            elif ref.is_foreign:
                problems.append(str(refuse_dtype(name, ref.dtype)))
    return problems


def inverse(table: tuple[Weight, ...], layers: int) -> dict[str, Weight]:
    """The same lines by target name: from a model folder back to the checkpoint."""
    return {line.target: line for line in expand(table, layers).values() if line.target}


#: What torch.compile, data parallelism and activation checkpointing put into names.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}

#: Tables of positions, which older versions of transformers save and every version computes.
_COMPUTED = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")

# .lora_A.default.weight
_NAMED_ADAPTER = re.compile(r"\.(lora_[AB])\.(?:\w+_adapter|default)\.weight$")


def clean_key(key: str) -> str:
    """A tensor's name without the wrappers that training put around its modules, and peft's."""
    parts = [part for part in key.split(".") if part not in _WRAPPERS]
    return ".".join(parts).removeprefix("base_model.model.")


def clean_adapter_key(key: str) -> str:
    """An adapter's tensor name, cleaned, and without the name of an adapter left inside."""
    return _NAMED_ADAPTER.sub(r".\1.weight", clean_key(key))


def clean_base_key(key: str) -> str | None:
    """A base's tensor name, cleaned, and without the prefix of a text model inside a larger one.

    None for what CLaRa has no use for: tables of positions, which are computed anew, and images.
    """
    key = clean_key(key)
    if key.endswith(_COMPUTED) or re.match(r"(model\.)?(vision_|multi_modal_)", key):
        return None
    if key.startswith("model.language_model."):
        return "model." + key.removeprefix("model.language_model.")
    return key.removeprefix("language_model.")


# No real model is deeper or wider; a hostile config must not cost memory.
_MOST_LAYERS = 1024
_MOST_SIZE = 1 << 20  # of any one dimension


def dimensions(
    base_config: Mapping[str, Any], rows: int, rank: int, *, where: str
) -> dict[str, int]:
    """The numbers behind the table's shape names, from a base's ``config.json``.

    ``rows`` is the number of token ids with the added ones, ``rank`` that of the adapters.

    Raises:
        CheckpointError: A field is missing, not a number, or out of all proportion.
    """

    def field(name: str, default: int | None = None) -> int:
        value = base_config.get(name)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value <= _MOST_SIZE:
            shown = (
                value if value is None or isinstance(value, int | float) else type(value).__name__
            )
            raise CheckpointError(
                f"{where}: {name} can't be {shown!s:.40}, in no base that CLaRa knows"
            )
        return value

    hidden = field("hidden_size")
    heads = field("num_attention_heads")
    layers = field("num_hidden_layers")
    if layers > _MOST_LAYERS:
        raise CheckpointError(f"{where}: num_hidden_layers can't be {layers}")
    head_dim = field("head_dim", max(1, hidden // heads))
    return {
        "hidden": hidden,
        "heads": heads * head_dim,
        "kv_heads": field("num_key_value_heads", heads) * head_dim,
        "mlp": field("intermediate_size"),
        "rows": rows,
        "rank": rank,
        "layers": layers,
    }
