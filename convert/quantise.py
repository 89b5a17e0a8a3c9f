"""Quantising one tensor at a time, and measuring how far its stored form is from its source."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import mlx.core as mx

from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import ModelFolder

# Elements compared at once: on a CPU fresh memory pages cost more than the arithmetic.
_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Quantisation:
    """mlx's affine quantisation: ``bits`` per weight in groups of ``group_size`` inputs."""

    bits: int
    group_size: int = 64
    mode: str = "affine"

    def __post_init__(self) -> None:
        if self.bits not in (4, 6, 8) or self.group_size not in (32, 64, 128):
            raise CheckpointError(
                f"can't quantise to {self.bits} bits in groups of {self.group_size}: "
                "bits are 8, 6 or 4, and groups 32, 64 or 128"
            )

    @classmethod
    def of(cls, folder: ModelFolder) -> Quantisation | None:
        """The quantisation of a model folder's base; None if it has none."""
        scheme = folder.description["quantization"]
        return cls(**scheme) if scheme else None

    def applies(self, shape: tuple[int, ...]) -> bool:
        """Whether mlx can quantise a tensor of this shape; mlx-lm leaves the same ones alone."""
        return len(shape) == 2 and shape[-1] % self.group_size == 0

    def nbytes(self, shape: tuple[int, ...], dtype_size: int) -> int:
        """Bytes of the stored form: packed weights, scales and biases."""
        rows, columns = shape
        return rows * (columns * self.bits // 8 + 2 * dtype_size * columns // self.group_size)


def quantise_tensor(
    name: str, array: mx.array, dtype: mx.Dtype, quantisation: Quantisation | None
) -> dict[str, mx.array]:
    """Make the stored form of a tensor: packed weights, scales and biases, by their full names.

    Without a quantisation that applies to its shape, a tensor is only cast to ``dtype``.
    """
    array = array.astype(dtype)
    if quantisation is None or not quantisation.applies(array.shape):
        stored = {name: array}
    else:
        path = name.removesuffix(".weight")
        parts = mx.quantize(array, quantisation.group_size, quantisation.bits)
        stored = dict(zip((name, f"{path}.scales", f"{path}.biases"), parts, strict=True))
    mx.eval(stored)
    return stored


@dataclass(frozen=True)
class Error:
    """How far a stored tensor is from its source.

    ``rms`` is relative to the source's root mean square, ``largest`` to its largest value.
    """

    rms: float = 0.0
    largest: float = 0.0


def measure_error(
    name: str, source: mx.array, stored: dict[str, mx.array], quantisation: Quantisation | None
) -> Error:
    """Compare a source tensor with its stored form, block by block.

    Raises:
        CheckpointError: The source has values that are not finite.
    """
    squares = norm = largest = peak = 0.0
    for block in _blocks(source.shape):
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
        if not value < float("inf"):  # NaN fails this too
            raise CheckpointError(f"{name} has values that are not finite; its file is damaged")
        squares += error_squares
        norm += value_squares
        largest = max(largest, error)
        peak = max(peak, value)
    if not squares + norm < float("inf"):
        raise CheckpointError(
            f"{name} has values up to {peak:.3g}, an overflow in the type that it is stored in; "
            "choose --dtype bfloat16 or float32"
        )
    return Error((squares / norm) ** 0.5 if norm else 0.0, largest / peak if peak else 0.0)


def steps_between(
    name: str, a: dict[str, mx.array], b: dict[str, mx.array], quantisation: Quantisation
) -> float:
    """The largest difference of two quantised forms, in units of b's own group scales."""
    scales = b[f"{name.removesuffix('.weight')}.scales"]
    largest = 0.0
    for block in _blocks(b[name].shape):
        difference = mx.abs(
            dequantise_rows(name, a, quantisation, block)
            - dequantise_rows(name, b, quantisation, block)
        )
        by_group = difference.reshape(*scales[block].shape, -1).max(-1)
        steps = by_group / mx.maximum(mx.abs(scales[block].astype(mx.float32)), 1e-30)
        largest = max(largest, float(steps.max()))
    return largest


def dequantise_rows(
    name: str, stored: dict[str, mx.array], quantisation: Quantisation | None, block: slice
) -> mx.array:
    """Some rows of a stored tensor as float32 values."""
    path = name.removesuffix(".weight")
    if quantisation is None or f"{path}.scales" not in stored:
        return stored[name][block].astype(mx.float32)
    return mx.dequantize(
        stored[name][block],
        # In float32, so that the arithmetic adds no error.
        stored[f"{path}.scales"][block].astype(mx.float32),
        stored[f"{path}.biases"][block].astype(mx.float32),
        group_size=quantisation.group_size,
        bits=quantisation.bits,
    )


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    """Slices that cut a tensor's rows into blocks of about _BLOCK_ELEMENTS elements."""
    step = max(1, _BLOCK_ELEMENTS // max(1, prod(shape[1:])))
    return [slice(i, i + step) for i in range(0, shape[0], step)]
