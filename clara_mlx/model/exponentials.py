"""Attention and SwiGLU for a CPU, on which MLX computes one exponential in the time of 30 products.

MLX's CPU backend calls the C library for each ``exp``, and does so on one core. In the encoder pass
that took longer than all products of its matrices together. Here exponentials are polynomials that
`mx.compile` fuses into one loop over the elements, which a compiler turns into vector instructions.
On a GPU, MLX's own kernels are used.
"""

from __future__ import annotations

from functools import partial
from math import factorial
from typing import cast

import mlx.core as mx

# exp(x) is the Taylor polynomial of x / 32, squared five times; below -64 it is as good as zero.
_SQUARINGS = 5
_SMALLEST = -64.0
_TERMS = 10  # the first that is left out is 2**10 / 10! = 3e-4 of a term at -64, whose exp is 1e-28

# tanh as an odd polynomial over an even one, exact to float32 between these bounds, where it is 1:
# the minimax coefficients that Eigen (MPL-2.0) uses, too.
_TANH_BOUND = 7.90531110763549805
_TANH_ODD = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_EVEN = (
    1.19825839466702e-06,
    1.18534705686654e-04,
    2.26843463243900e-03,
    4.89352518554385e-03,
)

#: Queries whose scores are computed at once: few, so that most keys after them are left out.
QUERY_BLOCK = 96


def on_cpu() -> bool:
    """Whether the pass runs on the CPU."""
    return mx.default_device().type == mx.DeviceType.cpu


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """``silu(gate) * up``, of arrays of one shape."""
    if not on_cpu() or gate.dtype != mx.float32:
        from mlx_lm.models.activations import swiglu as own

        return cast(mx.array, own(gate, up))
    return _swiglu(gate, up)


@partial(mx.compile, shapeless=True)
def _swiglu(gate: mx.array, up: mx.array) -> mx.array:
    half = 0.5 * gate
    x = mx.minimum(mx.maximum(half, -_TANH_BOUND), _TANH_BOUND)
    square = x * x
    odd = _polynomial(square, _TANH_ODD)
    even = _polynomial(square, _TANH_EVEN)
    return (half + half * (x * odd / even)) * up


@partial(mx.compile, shapeless=True)
def _exp(x: mx.array) -> mx.array:
    """exp of numbers up to zero, with a relative error of 2e-6."""
    x = mx.maximum(x, _SMALLEST) * (1 / 2**_SQUARINGS)
    y = _polynomial(x, [1 / factorial(k) for k in reversed(range(_TERMS))])
    for _ in range(_SQUARINGS):
        y = y * y
    return y


def _polynomial(x: mx.array, coefficients: tuple[float, ...] | list[float]) -> mx.array:
    """A polynomial at x by Horner's rule; the coefficient of its highest power comes first."""
    y = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        y = y * x + coefficient
    return y


def attend(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """Causal attention in which the last query stands at the last key.

    Args:
        queries: (batch, heads, n, width), n at most ``length``.
        keys: (batch, shared heads, length, width), and values alike.
        scale: What the products of queries and keys are multiplied by.

    Returns:
        (batch, heads, n, width)
    """
    if not on_cpu() or queries.dtype != mx.float32:
        return mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=scale, mask="causal"
        )
    n, length = queries.shape[2], keys.shape[2]
    first = length - n  # the position of the first query
    blocks = []
    for start in range(0, n, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, n)
        seen = first + end
        hidden = mx.arange(seen) > mx.arange(first + start, seen)[:, None]
        blocks.append(
            _attention(
                queries[:, :, start:end], keys[:, :, :seen], values[:, :, :seen], scale, hidden
            )
        )
    return blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=2)


def attend_at(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, starts: mx.array
) -> mx.array:
    """`attend` where the first query of each row of the batch stands at ``starts`` (batch,)."""
    n, length = queries.shape[2], keys.shape[2]
    positions = starts[:, None] + mx.arange(n)  # (batch, n)
    if not on_cpu() or queries.dtype != mx.float32:
        seen = mx.arange(length) <= positions[:, None, :, None]  # (batch, 1, n, length)
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=seen)
    return _attention(queries, keys, values, scale, mx.arange(length) > positions[..., None])


def _attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, hidden: mx.array
) -> mx.array:
    """Attention without the keys that ``hidden`` marks, ([batch,] n, length); see `attend`."""
    batch, heads, n, width = queries.shape
    shared, length = keys.shape[1:3]
    # Heads that share keys are one product with them.
    rows = (queries * scale).reshape(batch, shared, heads // shared * n, width)
    scores = rows @ keys.swapaxes(-1, -2)
    scores = scores.reshape(batch, shared, heads // shared, n, length)
    unseen = mx.where(hidden, -mx.inf, 0.0)
    scores = scores + (unseen[:, None, None] if hidden.ndim == 3 else unseen)
    weights = _exp(scores - scores.max(axis=-1, keepdims=True))
    sums = weights.sum(axis=-1, keepdims=True)
    out = weights.reshape(batch, shared, -1, length) @ values
    return out.reshape(batch, heads, n, width) / sums.reshape(batch, heads, n, 1)
