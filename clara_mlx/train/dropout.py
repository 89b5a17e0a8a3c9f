"""LoRA dropout: what training does to the inputs of every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from clara_mlx.model.lora import Adapters


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
    """Apply dropout, or none, to all adapters of a model; afterwards, what was before."""
    previous, adapters.dropout = adapters.dropout, dropout
    try:
        yield
    finally:
        adapters.dropout = previous
