"""Quantising one tensor at a time, and measuring how far its stored form is from its source."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import mlx.core as mx
import numpy as np

from clara_mlx.errors import CheckpointError
from clara_mlx.model.schemes import Quantisation

# Elements compared at once: on a CPU fresh memory pages cost more than the arithmetic.
_BLOCK_ELEMENTS = 1 << 20
# Between the two largest values of the formats E2M1 and E4M3, in units of a group's scale.
_LARGEST_GAP = {"mxfp4": 2.0, "nvfp4": 2.0, "mxfp8": 32.0}

# By type of float: the integers that its bits can be read as, and what infinity is among them.
_BIT_PATTERNS = {
    mx.bfloat16: (mx.int16, 0x7F80),
    mx.float16: (mx.int16, 0x7C00),
    mx.float32: (mx.int32, 0x7F800000),
}
# Pieces of a sample, which has as many elements as one block.
_SAMPLED_PIECES = 8


def quantise_tensor(
    name: str, array: mx.array, dtype: mx.Dtype, quantisation: Quantisation | None
) -> dict[str, mx.array]:
    """Make the stored form of a tensor: packed weights, scales and, if affine, biases, by name.

    Without a quantisation, a tensor is only cast to ``dtype``.
    """
    array = array.astype(dtype)
    if quantisation is None:
        stored = {name: array}
    else:
        path = name.removesuffix(".weight")
        parts = mx.quantize(
            array, quantisation.group_size, quantisation.bits, mode=quantisation.mode
        )
        # Only affine groups have a bias.
        stored = dict(zip((name, f"{path}.scales", f"{path}.biases"), parts, strict=False))
    mx.eval(stored)
    return stored


@dataclass(frozen=True)
class Error:
    """How far a stored tensor is from its source.

    ``rms`` is relative to the source's root mean square, ``largest`` to its largest value.
    """

    rms: float = 0.0
    largest: float = 0.0


def check_finite(name: str, source: mx.array, stored: dict[str, mx.array], dtype: mx.Dtype) -> None:
    """Check every value of a tensor, and of its stored form where that could overflow.

    Raises:
        CheckpointError: One is infinite, or not a number.
    """
    if not is_finite(source):
        raise CheckpointError(f"{name} has values that are not finite; its file is damaged")
    if source.dtype == dtype and len(stored) == 1:
        return
    if not all(is_finite(part) for part in stored.values() if part.dtype in _BIT_PATTERNS):
        peak = float(mx.abs(source).max())
        raise CheckpointError(
            f"{name} has values up to {peak:.3g}, an overflow in the type that it is stored in; "
            "choose --dtype bfloat16 or float32"
        )


def is_finite(array: mx.array) -> bool:
    """Whether all values of an array of floats are finite.

    Infinity and what is no number have the largest exponent. So they are the largest numbers if the
    bits are read as integers, of which the largest is found ten times as fast as by arithmetic.
    """
    signed, infinity = _BIT_PATTERNS[array.dtype]
    bits = np.array(array.view(signed), copy=False)
    if not bits.size:
        return True
    unsigned = bits.view(f"u{bits.itemsize}")  # in which negative values are the largest
    negative_infinity = infinity + (1 << (8 * bits.itemsize - 1))
    return int(bits.max()) < infinity and int(unsigned.max()) < negative_infinity


def measure_error(
    name: str,
    source: mx.array,
    stored: dict[str, mx.array],
    quantisation: Quantisation | None,
    *,
    sample: bool = False,
) -> Error:
    """Compare a source tensor with its stored form, block by block.

    Args:
        name: The tensor's name.
        source: Its values.
        stored: Its stored form.
        quantisation: How it is quantised, if it is.
        sample: Compare only some rows, evenly spaced: a few in a hundred of a large tensor's.

    Raises:
        CheckpointError: The source has values that are not finite, or too large to be squared.
    """
    squares = norm = largest = peak = 0.0
    for block in _sample(source.shape) if sample else _blocks(source.shape):
        values = source[block].astype(mx.float32)
        difference = dequantise_rows(name, stored, quantisation, block) - values
        figures = mx.stack(
            [
                difference.square().sum(),
                values.square().sum(),
                mx.abs(difference).max(),
                mx.abs(values).max(),
            ]
        )
        error_squares, value_squares, error, value = (float(figure) for figure in figures)
        squares += error_squares
        norm += value_squares
        largest = max(largest, error)
        peak = max(peak, value)
    if not squares + norm < float("inf"):  # NaN fails this too
        raise CheckpointError(
            f"{name} has values up to {peak:.3g}, which no network computes with; its file is "
            "damaged"
        )
    return Error((squares / norm) ** 0.5 if norm else 0.0, largest / peak if peak else 0.0)


def steps_between(
    name: str, a: dict[str, mx.array], b: dict[str, mx.array], quantisation: Quantisation
) -> float:
    """The largest difference of two quantised forms, in units of b's own quantisation steps."""
    sizes = _step_sizes(b[f"{name.removesuffix('.weight')}.scales"], quantisation)
    largest = 0.0
    for block in _blocks(b[name].shape):
        difference = mx.abs(
            dequantise_rows(name, a, quantisation, block)
            - dequantise_rows(name, b, quantisation, block)
        )
        by_group = difference.reshape(*sizes[block].shape, -1).max(-1)
        steps = by_group / mx.maximum(sizes[block], 1e-30)
        largest = max(largest, float(steps.max()))
    return largest


def _step_sizes(scales: mx.array, quantisation: Quantisation) -> mx.array:
    """The largest gap between neighbouring values of each group, as float32."""
    if quantisation.mode == "affine":
        return mx.abs(scales.astype(mx.float32))
    if quantisation.mode == "nvfp4":  # scales are E4M3 numbers
        return mx.from_fp8(scales, mx.float32) * _LARGEST_GAP["nvfp4"]
    exponents = scales.astype(mx.float32) - 127  # E8M0: powers of two
    return mx.power(2.0, exponents) * _LARGEST_GAP[quantisation.mode]


def dequantise_rows(
    name: str, stored: dict[str, mx.array], quantisation: Quantisation | None, block: slice
) -> mx.array:
    """Some rows of a stored tensor as float32 values."""
    path = name.removesuffix(".weight")
    if quantisation is None or f"{path}.scales" not in stored:
        return stored[name][block].astype(mx.float32)
    scales = stored[f"{path}.scales"][block]
    biases = None
    if quantisation.mode == "affine":  # in float32, so that the arithmetic adds no error
        scales = scales.astype(mx.float32)
        biases = stored[f"{path}.biases"][block].astype(mx.float32)
    return mx.dequantize(
        stored[name][block],
        scales,
        biases,
        group_size=quantisation.group_size,
        bits=quantisation.bits,
        mode=quantisation.mode,
        dtype=mx.float32,
    )


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    """Slices that cut a tensor's rows into blocks of about _BLOCK_ELEMENTS elements."""
    step = max(1, _BLOCK_ELEMENTS // max(1, prod(shape[1:])))
    return [slice(i, i + step) for i in range(0, shape[0], step)]


def _sample(shape: tuple[int, ...]) -> list[slice]:
    """Slices of a tensor's rows, from the first to the last, with about as many as one block."""
    step = max(1, _BLOCK_ELEMENTS // _SAMPLED_PIECES // max(1, prod(shape[1:])))
    if shape[0] <= step * _SAMPLED_PIECES:
        return _blocks(shape)
    last = shape[0] - step
    starts = [last * piece // (_SAMPLED_PIECES - 1) for piece in range(_SAMPLED_PIECES)]
    return [slice(start, start + step) for start in starts]
