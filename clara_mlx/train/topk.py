"""Straight-through differentiable top-k: the hard choice forward, soft choices backward."""

from __future__ import annotations

import mlx.core as mx

#: The reference divides scores by this in training.
TEMPERATURE = 0.02

# A document that an earlier slot has taken keeps this weight in the softmax of later slots, not
# zero: if it leads by more than 18.42 temperatures, it gets their mass too (reference behaviour).
_TAKEN = 1e-8


def differentiable_topk(
    scores: mx.array, k: int, temperature: float = TEMPERATURE
) -> tuple[mx.array, mx.array]:
    """Choose k of n documents by score; each slot's row is one-hot and has a soft gradient.

    The soft row of a slot is the softmax over the documents that earlier slots left, so gradient
    also reaches documents that were not chosen (CLaRa paper, section 3.3).

    Args:
        scores: Scores (batch, n), float32; -inf marks places without a document.
        k: Number of documents to choose, at most n.
        temperature: Divides the scores.

    Returns:
        Weights (batch, k, n), one-hot up to rounding, and indices (batch, k), best first.
    """
    y = scores / max(temperature, 1e-6)
    chosen = mx.argsort(-y, axis=-1)[:, :k]  # (batch, k)
    hard = (chosen[..., None] == mx.arange(scores.shape[-1])).astype(scores.dtype)
    taken = mx.cumsum(hard, axis=1) - hard  # by earlier slots
    soft = mx.softmax(y[:, None, :] + mx.log(1 - taken + _TAKEN), axis=-1)
    return hard + (soft - mx.stop_gradient(soft)), chosen
