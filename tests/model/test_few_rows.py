"""Products of few rows: the plain product's numbers, whatever the shapes."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from clara_mlx.model.few_rows import MOST_ROWS, FewRowsLinear, multiply, use_blocks


@pytest.mark.parametrize(
    "outputs, inputs",
    [(3584, 1024), (1021, 1999), (64, 70_000), (3, 2_000_000), (5, 8)],
    ids=["even", "with a rest", "wide", "one row is too large", "small"],
)
@pytest.mark.parametrize("shape", [(), (1, 1), (1, 3), (2, MOST_ROWS // 2), (1, MOST_ROWS + 1)])
def test_blocks_give_the_plain_product(outputs: int, inputs: int, shape: tuple[int, ...]) -> None:
    mx.random.seed(0)
    weight = mx.random.normal((outputs, inputs)) * inputs**-0.5
    x = mx.random.normal((*shape, inputs))
    wanted = x @ weight.T
    product = multiply(x, weight)
    assert product.shape == wanted.shape == (*shape, outputs)
    assert mx.abs(product - wanted).max().item() < 1e-5


def test_every_row_of_a_weight_is_read_in_its_place() -> None:
    weight = mx.repeat(mx.arange(1021, dtype=mx.float32)[:, None], 1999, axis=1)
    rows = multiply(mx.ones((2, 1999)), weight)
    assert rows[1].tolist() == [1999.0 * i for i in range(1021)]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_is_left_alone(dtype: Any) -> None:
    weight = mx.random.normal((2000, 1000)).astype(dtype)
    x = mx.random.normal((1, 1000)).astype(dtype)
    assert mx.array_equal(multiply(x, weight), x @ weight.T)


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_has_the_weights_of_the_one_it_replaces(bias: bool) -> None:
    plain = nn.Linear(1024, 3000, bias=bias)
    fast = FewRowsLinear(plain)
    assert set(fast.parameters()) == set(plain.parameters())
    assert fast.weight is plain.weight
    few, many = mx.random.normal((1, 2, 1024)), mx.random.normal((1, 40, 1024))
    assert mx.abs(fast(few) - plain(few)).max().item() < 1e-5
    assert mx.array_equal(fast(many), plain(many))  # a prompt is read as before, to the last bit


def test_a_network_keeps_its_names_and_its_quantised_layers() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.Sequential(nn.Linear(64, 32)), nn.ReLU())
    nn.quantize(network.layers[1], group_size=32)
    names = [name for name, _ in network.named_modules()]
    use_blocks(network)
    assert [name for name, _ in network.named_modules()] == names
    assert isinstance(network.layers[0], FewRowsLinear)
    assert type(network.layers[1].layers[0]) is nn.QuantizedLinear
