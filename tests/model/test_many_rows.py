"""Products of many rows with quantised matrices on a CPU."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from clara_mlx.model.many_rows import FEWEST_ROWS, ManyRowsQuantizedLinear, use_float32

FORMATS = [(8, 64, "affine"), (4, 32, "affine"), (3, 128, "affine"), (4, 32, "mxfp4")]


@pytest.mark.parametrize(("bits", "group_size", "mode"), FORMATS)
@pytest.mark.parametrize("bias", [False, True])
def test_results_are_those_of_the_quantised_product(
    bits: int, group_size: int, mode: str, bias: bool
) -> None:
    mx.random.seed(bits)
    linear = nn.Linear(128, 96, bias=bias)
    quantised = nn.QuantizedLinear.from_linear(linear, group_size, bits, mode=mode)
    if mode == "affine":  # as model folders have them
        quantised.scales = quantised.scales.astype(mx.bfloat16)
        quantised.biases = quantised.biases.astype(mx.bfloat16)
    ours = ManyRowsQuantizedLinear(quantised)
    for shape in [(1, 128), (FEWEST_ROWS, 128), (2, FEWEST_ROWS, 128)]:
        x = mx.random.normal(shape)
        assert ours(x).dtype == mx.float32
        assert mx.abs(ours(x) - quantised(x)).max().item() < 1e-5
    assert ours.trainable_parameters() == {}


def test_gradients_reach_the_inputs() -> None:
    quantised = nn.QuantizedLinear(64, 32)
    ours = ManyRowsQuantizedLinear(quantised)
    x = mx.random.normal((FEWEST_ROWS, 64))
    ours_of, theirs_of = (mx.grad(lambda x, f=f: f(x).square().sum())(x) for f in (ours, quantised))
    assert mx.abs(ours_of - theirs_of).max().item() < 1e-4


def test_only_quantised_layers_of_a_network_are_replaced() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.QuantizedLinear(64, 64))
    use_float32(network)
    assert [type(layer) for layer in network.layers] == [nn.Linear, ManyRowsQuantizedLinear]
