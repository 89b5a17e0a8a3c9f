"""Products of few rows with a large matrix, which a CPU's matrix library is slow at."""

from __future__ import annotations

import os
import threading

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

#: Above this many rows one product of the whole matrix is as fast; measured in bench/RESULTS.md.
MOST_ROWS = 16

# Multiplications of one product up to which OpenBLAS does not copy the matrix first. A copy takes
# several times as long as a product with one row, which reads every weight once.
_SMALL_PRODUCT = 1_000_000

# By thread, the stream that computes half of the blocks: each works on one core.
_second = threading.local()


def multiply(x: mx.array, weight: mx.array) -> mx.array:
    """``x @ weight.T`` for ``x`` (..., in) and a weight (out, in); gives (..., out).

    Few rows in float32 on a CPU are multiplied with blocks of the weight's rows, without copying
    any: an answer's tokens come one by one, and take as long as their products read weights. Half
    of the blocks are left to another core. Results differ from the plain product's by float32
    rounding.
    """
    rows = x.size // x.shape[-1]
    if rows > MOST_ROWS or not _is_on_cpu() or weight.dtype != mx.float32:
        return x @ weight.T
    outputs, inputs = weight.shape
    count = -(-outputs * inputs * rows // _SMALL_PRODUCT)  # blocks, rounded up
    height = outputs // count  # rows of a block
    if count == 1 or height == 0:
        return x @ weight.T
    flat = x.reshape(rows, inputs)
    blocks = weight[: count * height].reshape(count, height, inputs).swapaxes(1, 2)
    half = count // 2
    products = [flat @ blocks[half:]]  # (count, rows, height), in two parts
    if half:
        products.insert(0, mx.matmul(flat, blocks[:half], stream=_second_stream()))
    y = mx.concatenate(products).swapaxes(0, 1).reshape(rows, count * height)
    if count * height < outputs:
        y = mx.concatenate([y, flat @ weight[count * height :].T], axis=1)
    return y.reshape(*x.shape[:-1], outputs)


class FewRowsLinear(nn.Linear):
    """A linear layer that multiplies as `multiply` does; it has the weights of the one given."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.weight = linear.weight
        if "bias" in linear:
            self.bias = linear.bias

    def __call__(self, x: mx.array) -> mx.array:
        """Output (..., out) for inputs (..., in)."""
        if x.size // x.shape[-1] > MOST_ROWS:
            return super().__call__(x)
        y = multiply(x, self.weight)
        return y + self.bias if "bias" in self else y


def use_blocks(network: nn.Module) -> None:
    """Have all plain linear layers of a network multiply as `multiply` does, in place."""
    layers = [
        (name, FewRowsLinear(module))
        for name, module in network.named_modules()
        if type(module) is nn.Linear
    ]
    network.update_modules(tree_unflatten(layers))


def _second_stream() -> mx.Stream | None:
    """A second stream of this thread; None on a machine with one core."""
    if not hasattr(_second, "stream"):
        _second.stream = mx.new_stream(mx.cpu) if (os.cpu_count() or 1) > 1 else None
    stream: mx.Stream | None = _second.stream
    return stream


def _is_on_cpu() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.cpu)
