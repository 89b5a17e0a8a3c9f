"""What training adds to a pass through the model: dropout, and activations computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from clara_mlx.model.encoder import RunLayer, run_layer
from clara_mlx.model.lora import AdaptedLinear, Adapters


class Dropout:
    """Zeroes a share of an adapter's inputs and scales up the rest.

    Attributes:
        share: The share of the inputs that is zeroed.
        key: The random key of the next layer's mask; each call moves it on.
    """

    def __init__(self, share: float, key: mx.array) -> None:
        self.share = share
        self.key = key

    def __call__(self, x: mx.array) -> mx.array:
        """The inputs (..., in) under a new mask."""
        self.key, key = mx.random.split(self.key)
        kept = mx.random.bernoulli(1 - self.share, x.shape, key=key)
        return mx.where(kept, x * (1 / (1 - self.share)), 0)


@contextmanager
def use_dropout(adapters: Adapters, dropout: Dropout | None) -> Iterator[None]:
    """Apply dropout, or none, to all adapters for a block; then restore what was before."""
    previous = adapters.dropout
    adapters.dropout = dropout
    try:
        yield
    finally:
        adapters.dropout = previous


def checkpointed_run_layer(adapters: Adapters) -> RunLayer:
    """A `run_layer` that computes activations again for the gradient instead of keeping them."""

    def run(layer: Any, h: mx.array) -> mx.array:
        name = adapters.active
        if name is None:
            return run_layer(layer, h)
        # mx.checkpoint gives gradient to arguments only, so the block's trained arrays are passed.
        adapted = [module for module in layer.modules() if isinstance(module, AdaptedLinear)]
        own = [module.adapters[name] for module in adapted]
        dropout = adapters.dropout
        before = Dropout(dropout.share, dropout.key) if isinstance(dropout, Dropout) else None
        keys_after: list[mx.array] = []

        def again(tensors: list[dict[str, mx.array]], h: mx.array) -> mx.array:
            # This is called a second time after the pass, so it sets everything that was in force.
            masks = before and Dropout(before.share, before.key)
            with (
                adapters.use(name),
                use_dropout(adapters, masks),
                _holding(adapted, name, tensors),
            ):
                output = run_layer(layer, h)
            if masks:
                keys_after.append(masks.key)
            return output

        output: mx.array = mx.checkpoint(again)(own, h)
        if isinstance(dropout, Dropout):
            dropout.key = keys_after[0]  # the next block continues from there
        return output

    return run


@contextmanager
def _holding(
    modules: list[AdaptedLinear], name: str, tensors: list[dict[str, mx.array]]
) -> Iterator[None]:
    own = [module.adapters[name] for module in modules]
    for module, arrays in zip(modules, tensors, strict=True):
        module.adapters[name] = arrays
    try:
        yield
    finally:
        for module, arrays in zip(modules, own, strict=True):
            module.adapters[name] = arrays
