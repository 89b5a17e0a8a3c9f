"""Straight-through differentiable top-k: the hard choice forward, soft choices backward."""

from __future__ import annotations

import mlx.core as mx

#: What the reference divides scores by in training.
TEMPERATURE = 0.02

# A document taken by an earlier slot keeps this weight in a later one's softmax, not zero: with a
# lead above 18.42 temperatures it still gets that slot's mass (reference behaviour).
_TAKEN = 1e-8


def differentiable_topk(
    scores: mx.array, k: int, temperature: float = TEMPERATURE
) -> tuple[mx.array, mx.array]:
    """Choose k of n documents by score; slot j is a one-hot row with a soft gradient.

    The soft row of slot j is the softmax over the documents that earlier slots left, so gradient
    reaches documents that were not chosen as well (CLaRa paper, section 3.3).

    Args:
        scores: (batch, n) float32; -inf marks places without a document.
        k: how many, at most n.
        temperature: divides the scores.

    Returns:
        Weights (batch, k, n), one-hot up to rounding, and indices (batch, k), best first.
    """
    y = scores / max(temperature, 1e-6)
    chosen = mx.argsort(-y, axis=-1)[:, :k]  # (batch, k)
    hard = (chosen[..., None] == mx.arange(scores.shape[-1])).astype(scores.dtype)
    taken = mx.cumsum(hard, axis=1) - hard  # by earlier slots
    soft = mx.softmax(y[:, None, :] + mx.log(1 - taken + _TAKEN), axis=-1)
    return hard + (soft - mx.stop_gradient(soft)), chosen
