"""A random rotation that costs n log n: random signs, then the Walsh-Hadamard transform.

It spreads a vector's energy evenly over its coordinates: outlier dimensions no longer set the scale
for the others (`codec`), and any subset of coordinates is a fair sample of the vector (`sketch`).
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# The transform is a product of small dense ones, each a stack of matrix products that BLAS does
# fast; factors of 16 beat both 64 (more to compute) and 4 (more passes).
_LARGEST_FACTOR = 16

# Multiplications of one matrix product: OpenBLAS gives larger ones to several threads, which turns
# microseconds into milliseconds on a busy machine.
_LARGEST_PRODUCT = 1 << 17


def signs(n: int, seed: int) -> Floats:
    """``n`` random signs, shape (n,) float32.

    From SHAKE-256, because they are part of what is stored: numpy's generators may change.
    """
    bits = np.unpackbits(random_bytes((n + 7) // 8, f"signs {seed}"), count=n)
    return np.where(bits, np.float32(1), np.float32(-1))


def random_bytes(n: int, label: str) -> npt.NDArray[np.uint8]:
    """``n`` random bytes, shape (n,): always the same ones for a label, on every machine."""
    return np.frombuffer(hashlib.shake_256(f"clara-mlx {label}".encode()).digest(n), np.uint8)


def transform(x: Floats) -> Floats:
    """The orthonormal Walsh-Hadamard transform of the last axis, which is a power of two long.

    It is its own inverse.
    """
    shape = x.shape
    n = shape[-1]
    inner = min(_LARGEST_FACTOR, n)
    rows = min(n, _LARGEST_PRODUCT // inner) // inner
    x = x.reshape(-1, rows, inner) @ _matrix(inner)  # it is symmetric
    while inner < n:
        factor = min(_LARGEST_FACTOR, n // inner)
        columns = min(inner, _LARGEST_PRODUCT // factor**2)
        split = (-1, factor, inner // columns, columns)
        y = np.empty_like(x)
        np.matmul(
            _matrix(factor), x.reshape(split).swapaxes(1, 2), out=y.reshape(split).swapaxes(1, 2)
        )
        x = y
        inner *= factor
    return x.reshape(shape)


@functools.cache
def _matrix(n: int) -> Floats:
    """The orthonormal Hadamard matrix (n, n), which is symmetric."""
    h = np.ones((1, 1), np.float32)
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    h /= np.sqrt(np.float32(n))
    h.flags.writeable = False
    return h
