"""The trained part of a model: some adapters in float32, and the memory tokens' embedding rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.lora import Adapters

#: Adapter -> tensors by name; under `ROWS` the embedding rows of the added tokens.
Parameters = dict[str, dict[str, mx.array]]

ROWS = "memory_rows"
_ROWS_KEY = "embed_tokens.weight"


def collect(model: Any, adapters: Adapters, trained: tuple[str, ...], *, rows: bool) -> Parameters:
    """The trained arrays of a model, as float32 copies.

    Args:
        model: The base with its memory-token embedding.
        adapters: The model's adapters.
        trained: Names of the adapters that get gradient.
        rows: The memory tokens' rows get gradient too.
    """
    names = {name: adapters.tensors(name) for name in trained}
    if rows:
        names[ROWS] = {_ROWS_KEY: model.model.embed_tokens.rows}
    parameters = {
        name: {key: array.astype(mx.float32) for key, array in tensors.items()}
        for name, tensors in names.items()
    }
    mx.eval(parameters)
    in_order: Parameters = sort_by_key(parameters)
    return in_order


def sort_by_key(tree: Any) -> Any:
    """Nested dicts in the order of their keys, so that sums over them don't depend on a file."""
    if isinstance(tree, dict):
        return {key: sort_by_key(tree[key]) for key in sorted(tree)}
    return tree


def put(model: Any, adapters: Adapters, parameters: Parameters) -> None:
    """Make the model compute with these arrays."""
    for name, tensors in parameters.items():
        if name == ROWS:
            model.model.embed_tokens.rows = tensors[_ROWS_KEY]
        else:
            adapters.replace_tensors(name, tensors)


@contextmanager
def in_place(model: Any, adapters: Adapters, parameters: Parameters) -> Iterator[None]:
    """`put` for a block that builds a graph; afterwards the model has its own arrays again."""
    own: Parameters = {
        name: {_ROWS_KEY: model.model.embed_tokens.rows} if name == ROWS else adapters.tensors(name)
        for name in parameters
    }
    put(model, adapters, parameters)
    try:
        yield
    finally:
        put(model, adapters, own)


def memory_rows_only(gradients: Parameters, config: ClaraConfig) -> Parameters:
    """Gradients with zeros for ``<AE>``, ``<ENC>`` and ``<SEP>`` (reference behaviour)."""
    if ROWS not in gradients:
        return gradients
    rows = gradients[ROWS][_ROWS_KEY]
    is_memory = mx.arange(rows.shape[0]) <= max(config.memory_ids) - config.base_vocab_size
    return gradients | {ROWS: {_ROWS_KEY: mx.where(is_memory[:, None], rows, 0)}}


def count(parameters: Parameters) -> dict[str, int]:
    """Number of trained values by part."""
    return {
        name: sum(array.size for array in tensors.values()) for name, tensors in parameters.items()
    }


def new_adapter(like: dict[str, mx.array], seed: int, name: str) -> dict[str, mx.array]:
    """An adapter as peft starts one: A uniform within 1 / sqrt(inputs), B zero.

    Args:
        like: Tensors of the wanted shapes, named as in `Adapters.tensors`.
        seed: Decides A, together with ``name``.
        name: The adapter's name.
    """
    key = mx.random.key(random.Random(f"{seed} {name}").getrandbits(63))
    tensors = {}
    for path, array in like.items():
        key, own = mx.random.split(key)
        bound = array.shape[0] ** -0.5  # lora_a is (in, rank)
        tensors[path] = (
            mx.random.uniform(-bound, bound, array.shape, key=own)
            if path.endswith(".lora_a")
            else mx.zeros(array.shape)
        )
    return tensors
