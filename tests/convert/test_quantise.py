"""Quantised tensors compared with their source: by samples, and whether all values are finite."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.convert.quantise import check_finite, is_finite, measure_error, quantise_tensor
from clara_mlx.errors import CheckpointError
from clara_mlx.model.schemes import Quantisation

FLOATS = {mx.bfloat16: mx.uint16, mx.float16: mx.uint16, mx.float32: mx.uint32}


@given(st.data())
def test_finite_is_what_arithmetic_calls_so(data: st.DataObject) -> None:
    """Any bits at all: subnormal values, both infinities, all that is no number."""
    dtype = data.draw(st.sampled_from([*FLOATS]))
    most = 2**16 - 1 if FLOATS[dtype] == mx.uint16 else 2**32 - 1
    near = st.sampled_from([0x7F7F, 0x7F80, 0x7F81, 0xFF7F, 0xFF80, 0xFFFF, 0x7BFF, 0x7C00, 0xFC00])
    bits = data.draw(st.lists(st.integers(0, most) | near, max_size=5))
    array = mx.array(np.array(bits, np.uint32)).astype(FLOATS[dtype]).view(dtype)
    assert is_finite(array) == bool(mx.isfinite(array.astype(mx.float32)).all())


def test_one_value_among_many_is_found() -> None:
    values = np.zeros((64, 4096), np.float32)
    assert is_finite(mx.array(values).astype(mx.bfloat16))
    values[17, 33] = -np.inf
    with pytest.raises(CheckpointError, match=r"w.weight has values that are not finite"):
        check_finite("w.weight", mx.array(values), {}, mx.float32)


@pytest.mark.parametrize("quantisation", [None, Quantisation(8, 64), Quantisation(4, 64)])
def test_an_overflow_in_the_stored_type_is_refused(quantisation: Quantisation | None) -> None:
    source = mx.full((2, 64), 1e6) * mx.array([1.0, -1.0])[:, None]
    stored = quantise_tensor("w.weight", source, mx.float16, quantisation)
    with pytest.raises(CheckpointError, match=r"up to 1e\+06, an overflow"):
        check_finite("w.weight", source, stored, mx.float16)
    wide = quantise_tensor("w.weight", source, mx.float32, quantisation)
    check_finite("w.weight", source, wide, mx.float32)


def test_a_sample_measures_what_all_rows_do() -> None:
    mx.random.seed(3)
    source = mx.random.normal((9000, 1024))
    quantisation = Quantisation(4, 64)
    stored = quantise_tensor("w.weight", source, mx.bfloat16, quantisation)
    all_rows = measure_error("w.weight", source, stored, quantisation)
    sample = measure_error("w.weight", source, stored, quantisation, sample=True)
    assert sample.rms == pytest.approx(all_rows.rms, rel=0.02)
    assert 0 < sample.largest <= all_rows.largest * 1.2  # the largest value may be elsewhere


def test_a_sample_has_the_first_and_the_last_rows() -> None:
    source = mx.zeros((9000, 1024))
    off = mx.array(source)
    off[0, 0], off[-1, -1] = 0.5, 0.25
    found = measure_error("w.weight", off, {"w.weight": source}, None, sample=True)
    assert found.largest == 1.0 and found.rms == 1.0


def test_small_tensors_are_compared_whole() -> None:
    source = mx.zeros((999, 8))
    source[500, 3] = 1.0
    assert measure_error("w", source, {"w": mx.zeros((999, 8))}, None, sample=True).largest == 1.0
