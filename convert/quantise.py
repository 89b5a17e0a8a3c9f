"""One tensor at a time into its stored form, and how far that is from its source."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from clara_mlx.errors import CheckpointError

# Rows compared at once: on a CPU fresh memory pages cost more than the arithmetic.
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

    def applies(self, shape: tuple[int, ...]) -> bool:
        """Whether mlx can quantise a matrix of this shape; others stay as in mlx-lm."""
        return len(shape) == 2 and shape[-1] % self.group_size == 0

    def nbytes(self, shape: tuple[int, ...], dtype_size: int) -> int:
        """Bytes of the stored form: packed weights, scales and biases."""
        rows, columns = shape
        return rows * (columns * self.bits // 8 + 2 * dtype_size * columns // self.group_size)


def store(
    name: str, array: mx.array, dtype: mx.Dtype, quantisation: Quantisation | None
) -> dict[str, mx.array]:
    """The arrays that keep a tensor in a model folder, by their full names, evaluated."""
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

    ``rms`` is relative to the source's root mean square, ``largest`` to its largest value;
    ``steps`` is the largest difference in units of its own group's scale (0 if not quantised).
    """

    rms: float = 0.0
    largest: float = 0.0
    steps: float = 0.0


#: Rounding, of the value and of its bfloat16 scale and bias, stays below this many steps.
MOST_STEPS = 2.0


def error_of(
    name: str, source: mx.array, stored: dict[str, mx.array], quantisation: Quantisation | None
) -> Error:
    """Compare a source tensor with its stored form, block by block.

    Raises:
        CheckpointError: the source has values that are not finite.
    """
    weight = stored[name]
    path = name.removesuffix(".weight")
    scales, biases = stored.get(f"{path}.scales"), stored.get(f"{path}.biases")
    rows = source.shape[0] if source.ndim else 1
    step = max(1, _BLOCK_ELEMENTS * rows // max(1, source.size))
    squares = norm = largest = peak = steps = 0.0
    for i in range(0, rows, step):
        block = slice(i, i + step)
        values = source[block].astype(mx.float32)
        if scales is not None and biases is not None and quantisation is not None:
            kept = mx.dequantize(
                weight[block],
                scales[block],
                biases[block],
                group_size=quantisation.group_size,
                bits=quantisation.bits,
            )
            difference = mx.abs(kept.astype(mx.float32) - values)
            by_group = difference.reshape(*scales[block].shape, -1).max(-1)
            in_steps = by_group / mx.maximum(mx.abs(scales[block]).astype(mx.float32), 1e-30)
        else:
            difference = mx.abs(weight[block].astype(mx.float32) - values)
            in_steps = mx.array(0.0)
        figures = mx.stack(
            [
                difference.square().sum(),
                values.square().sum(),
                difference.max(),
                mx.abs(values).max(),
                in_steps.max(),
            ]
        )
        e2, w2, e, w, s = (float(figure) for figure in figures)
        squares, norm = squares + e2, norm + w2
        largest, peak, steps = max(largest, e), max(peak, w), max(steps, s)
    if not squares + norm < float("inf"):  # NaN fails this too
        raise CheckpointError(f"{name}: holds values that are not finite; the file is damaged")
    return Error((squares / norm) ** 0.5 if norm else 0.0, largest / peak if peak else 0.0, steps)
