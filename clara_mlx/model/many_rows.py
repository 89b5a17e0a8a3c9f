"""Products of many rows with a quantised matrix, which MLX's CPU backend computes row by row."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

#: From this many rows on a CPU is faster if it turns the matrix into float32 first: that takes as
#: long as two or three rows do. (256 rows are 28 times as fast.)
FEWEST_ROWS = 8


class ManyRowsQuantizedLinear(nn.QuantizedLinear):
    """A quantised linear layer that has the weights of the one given, and multiplies as they need.

    Many rows in float32 on a CPU are multiplied with the matrix as float32, which is made for this
    product and let go after it: it needs room for one matrix, not for a second model. Results
    differ from the quantised product's by float32 rounding.
    """

    def __init__(self, linear: nn.QuantizedLinear) -> None:
        nn.Module.__init__(self)
        self.group_size, self.bits, self.mode = linear.group_size, linear.bits, linear.mode
        for name in ("weight", "scales", "biases", "bias"):
            if name in linear:
                self[name] = linear[name]
        self.freeze()

    def __call__(self, x: mx.array) -> mx.array:
        """Output (..., out) for inputs (..., in)."""
        rows = x.size // x.shape[-1]
        on_cpu = mx.default_device().type == mx.DeviceType.cpu
        if rows < FEWEST_ROWS or not on_cpu or x.dtype != mx.float32:
            output: mx.array = super().__call__(x)  # type: ignore[no-untyped-call]
            return output
        scales, biases = self.scales, self.get("biases")
        if biases is not None:  # affine: what it gives is rounded to the dtype of these
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        weight = mx.dequantize(
            self.weight, scales, biases, self.group_size, self.bits, self.mode, dtype=mx.float32
        )
        y = x @ weight.T
        return y + self.bias if "bias" in self else y


def use_float32(network: nn.Module) -> None:
    """Have all quantised layers of a network multiply many rows in float32 on a CPU, in place."""
    layers = [
        (name, ManyRowsQuantizedLinear(module))
        for name, module in network.named_modules()
        if type(module) is nn.QuantizedLinear
    ]
    network.update_modules(tree_unflatten(layers))
