"""A source's own forward pass in float32, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from clara_mlx.convert.source import Source
from clara_mlx.errors import Progress
from clara_mlx.model.lora import SCALE, TARGETS
from clara_mlx.model.network import build_network


def float32_embeds(source: Source, inputs: Sequence[Sequence[int]]) -> mx.array:
    """Embeddings of ids, padded on the right: (inputs, longest, hidden) float32."""
    longest = max(map(len, inputs))
    padded = mx.array([[*ids, *[0] * (longest - len(ids))] for ids in inputs])
    embeds = source.base["model.embed_tokens.weight"].read()[padded].astype(mx.float32)
    mx.eval(embeds)
    return embeds


def float32_states(
    source: Source, embeds: mx.array, adapter: str, progress: Progress | None
) -> mx.array:
    """States after the final norm, under an adapter: (batch, length, hidden) float32.

    It is the model's own forward pass, and shares nothing with the encoder that it checks.

    Args:
        source: The checkpoint and its base.
        embeds: Input embeddings (batch, length, hidden).
        adapter: Its name.
        progress: Called as layers are done.
    """
    network: Any = build_network(source.base_config, where=source.base_path / "config.json")
    layers = source.sizes["layers"]

    def read_layer(i: int) -> list[tuple[str, mx.array]]:
        if progress:
            progress(i + 1, layers, f"float32 {adapter} pass")
        return _merged_layer(source, adapter, i)

    network.model.layers = [
        _StreamedLayer(layer, partial(read_layer, i)) for i, layer in enumerate(network.layers)
    ]
    network.model.norm.weight = source.base["model.norm.weight"].read().astype(mx.float32)
    ids = mx.zeros(embeds.shape[:2], mx.int32)  # only their shape counts beside embeddings
    states: mx.array = network.model(ids, input_embeddings=embeds)
    return states


class _StreamedLayer:
    """A block that reads its weights when it is run, and forgets them."""

    def __init__(self, block: nn.Module, read: Callable[[], list[tuple[str, mx.array]]]) -> None:
        self._block: Any = block
        self._read = read

    def __call__(self, *args: Any, **options: Any) -> mx.array:
        empty = self._block.parameters()
        self._block.load_weights(self._read())
        output: mx.array = self._block(*args, **options)
        mx.eval(output)
        self._block.update(empty)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)


def _merged_layer(source: Source, adapter: str, layer: int) -> list[tuple[str, mx.array]]:
    """One layer's float32 weights with an adapter merged into them."""
    prefix = f"model.layers.{layer}."
    weights = {
        name.removeprefix(prefix): ref.read().astype(mx.float32)
        for name, ref in source.base.items()
        if name.startswith(prefix)
    }
    lora = source.adapters[adapter]
    for target in TARGETS:
        a = lora[f"{prefix}{target}.lora_A.weight"].read().astype(mx.float32)
        b = lora[f"{prefix}{target}.lora_B.weight"].read().astype(mx.float32)
        weights[f"{target}.weight"] += SCALE * (b @ a)
    return list(weights.items())
